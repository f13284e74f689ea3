"""`sysml-run verify`: whether every byte of a package or a run is as it was written."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run import verification
from sysml_run.errors import UsageError
from sysml_run.report import printable
from sysml_run.verification import Listing, Seen

BAR = 30  # characters
OFTEN = 0.1  # seconds between two pictures of the bar


@dataclass(frozen=True)
class Verdict:
    """What was found in one folder; `problems` says by name what is wrong."""

    path: str
    listed: Listing
    problems: dict[str, str]


def run(options: argparse.Namespace) -> int:
    """Exit code 1 when a byte changed, a file is missing or one came in. Raises UsageError for other folders."""
    verdicts = [verify(path) for path in options.paths]
    sys.stdout.write(as_data(verdicts) if options.format == "json" else "".join(map(as_text, verdicts)))
    return 1 if any(verdict.problems for verdict in verdicts) else 0


def verify(path: Path) -> Verdict:
    """Read one folder whole, with a bar on a terminal."""
    if not path.is_dir():
        what = "a file: unpack it first" if path.exists() else "not there"
        raise UsageError(f"{path} is {what}", "name a package or a finished run directory")
    listed = verification.listing(path)
    with bar(listed.bytes) as seen:
        return Verdict(str(path), listed, verification.differences(path, listed, seen))


def as_data(verdicts: list[Verdict]) -> str:
    """`{"folders": [{"path", "kind", "files", "bytes", "problems": [{"name", "problem"}]}]}`."""
    folders: list[dict[str, Any]] = [
        {
            "path": each.path,
            "kind": each.listed.kind,
            "files": len(each.listed.entries),
            "bytes": each.listed.bytes,
            "problems": [{"name": name, "problem": problem} for name, problem in each.problems.items()],
        }
        for each in verdicts
    ]
    return json.dumps({"folders": folders}, indent=2) + "\n"


def as_text(verdict: Verdict) -> str:
    """What is wrong, a line each, or one line that nothing is."""
    count, run = len(verdict.listed.entries), verdict.listed.kind == "run"  # which has other files, left unlooked at
    files = f"{count:,} listed files" if run else f"{count:,} files listed"
    if not verdict.problems:
        return f"{verdict.path}: {files}, {verdict.listed.bytes / 1e6:,.1f} MB, every byte as it was written\n"
    wrong = [f"  {printable(name)}: {problem}" for name, problem in verdict.problems.items()]
    return "\n".join([f"{verdict.path}: {files}, {len(wrong):,} not as written", *wrong]) + "\n"


@contextmanager
def bar(total: int) -> Iterator[Seen]:
    """Tell what is yielded how many bytes were read; drawn on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    done, drawn = 0, 0.0

    def seen(count: int) -> None:
        nonlocal done, drawn
        done += count
        if time.monotonic() - drawn >= OFTEN:
            drawn = time.monotonic()
            share = min(1.0, done / total) if total else 0.0
            sys.stderr.write(f"\r{'#' * int(BAR * share):{BAR}} {share:4.0%} of {total / 1e9:.2f} GB ")
            sys.stderr.flush()

    try:
        yield seen
    finally:
        sys.stderr.write("\r\x1b[K")
