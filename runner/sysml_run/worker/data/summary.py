"""The data report in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMED = 5


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Rows, files passed over, a line a split, copies, warnings."""
    rows = report["rows"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rows["dropped"].items()))
    yield f"prepare: {rows['read']} rows read, {rows['kept']} kept" + (f"; left out: {reasons}" if reasons else "")
    yield from passed_over(report["files"])
    for name, split in report["splits"].items():
        if split["rows"]:
            yield split_line(name, split)
    for name, found in report["leakage"].items():
        if report["splits"][name]["rows"]:
            yield f"  {name} rows also in train: {found['exact']} exact, {found['masked']} but for numbers and hex"
    same = report["duplicates"]
    yield f"  copies: {same['exact']} exact, {same['masked']} but for numbers and hex"
    yield from (f"  warning: {warning}" for warning in report["warnings"])


def passed_over(files: list[dict[str, Any]]) -> Iterator[str]:
    """The first few members without rows, and what could not be read."""
    found = [(note, note.get("unreadable") or note.get("skipped")) for note in files]
    found += [(note, f"line {line}: {why}") for note in files for line, why in note.get("bad_lines", [])]
    named = [(note, why) for note, why in found if why]
    for note, why in named[:NAMED]:
        yield f"  passed over {note['path']}{':' if note['member'] else ''}{note['member'] or ''}: {why}"
    if len(named) > NAMED:
        yield f"  … and {len(named) - NAMED} more, in the report"


def split_line(name: str, split: dict[str, Any]) -> str:
    tokens = split["tokens"]
    return (
        f"  {name:<10} {split['rows']:>7} rows  tokens p50 {tokens['p50']}, p95 {tokens['p95']}, max {tokens['max']}; "
        f"truncated {split['truncated']}; answers {split['answer_share']:.0%} of tokens"
    )
