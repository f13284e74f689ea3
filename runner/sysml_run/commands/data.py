"""`sysml-run data`: prepares the rows as a run would, and shows what came of it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from sysml_run import dataview, execute, machine, plan, planview, runs
from sysml_run.errors import StageError, UsageError
from sysml_run.prepared import REPORT, VIEW
from sysml_run.report import wants_colour
from sysml_run.rundir import RunDir, read_json, write_json
from sysml_run.verification import refusal

from .load import load, ready


def run(options: argparse.Namespace) -> int:
    """Print the data report and, with --show, rows; with --out write them all. Progress goes to standard error."""
    if options.out is not None and (why := refusal(options.out)):
        raise UsageError(f"--out cannot be written: {why}", "name another folder")
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="sysml-run-data-") as folder:
        report, shown = prepared(options, RunDir(Path(folder) / "run"))
    if options.format == "json":
        sys.stdout.write(json.dumps({**report, "shown": shown}, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(dataview.text(report, shown, colour=wants_colour(sys.stdout)))
    return 0


def prepared(options: argparse.Namespace, rundir: RunDir) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data report and the rows asked for, from a run of nothing but the prepare stage."""
    options.hardware = options.hardware or "cpu"  # the rows are the same on every accelerator
    document, resolved = load(options.recipe, options)
    ready(resolved)
    made = plan.make(resolved, machine.look(), str(rundir.path), offline=options.offline)
    runs.write(rundir, made, document.text, planview.values(made, document.source))
    out = options.out and str(options.out.absolute())
    write_json(rundir.data / VIEW, {"show": max(0, options.show), "tokens": options.tokens, "out": out})
    prepare = made.launches[0]
    view = replace(prepare, stage="view", argv=(*prepare.argv[:-2], "view", prepare.argv[-1]))
    with runs.owned(rundir) as lock:
        try:
            execute.run([prepare, view] if options.show or out else [prepare], rundir, lock)
        except StageError as error:  # whose log goes with the folder
            kept = [line for line in (error.hint or "").split("\n") if not line.startswith("log: ")]
            raise StageError(error.message, "\n".join(kept) or None) from error
    shown = rundir.data / "shown.json"
    return read_json(rundir.data / REPORT), read_json(shown) if shown.exists() else []
