"""The data report in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMED = 5


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Rows, files passed over, what the recipe did to rows, a line a split, copies, packing, warnings."""
    rows = report["rows"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rows["dropped"].items()))
    yield f"prepare: {rows['read']} rows read, {rows['kept']} kept" + (f"; left out: {reasons}" if reasons else "")
    yield from passed_over(report["files"])
    yield from chosen(report)
    held = [name for name, split in report["splits"].items() if split["rows"]]
    yield from (split_line(name, report["splits"][name]) for name in held)
    yield from (leak_line(name, report["leakage"]) for name in held if name in report["leakage"])
    same = report["duplicates"]
    yield f"  copies: {same['exact']} exact, {same['masked']} but for numbers and hex"
    if "packing" in report:
        yield packing_line(report["packing"])
    yield from (f"  warning: {warning}" for warning in report["warnings"])


def chosen(report: dict[str, Any]) -> Iterator[str]:
    """What `where`, `route`, `redact` and `weight` came to."""
    for each in report.get("where", ()):
        yield f"  datasets.{each['dataset']}.where keeps {each['kept']} rows and leaves out {each['left_out']}"
    for each in report.get("routes", ()):
        counts = f"{each['match']} rows match, {each['rest']} do not; {each['take']} is taken"
        yield f"  datasets.{each['dataset']}.route: {counts}"
    for each in report.get("redacted", ()):
        yield f"  datasets.{each['dataset']}.redact: {each['replaced']} times {each['pattern']}"
    for each in report.get("weights", ()):
        yield f"  datasets.{each['dataset']}.weight {each['weight']:g}: {each['rows']} rows drawn {each['drawn']} times"


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
    tokens, loss = split["tokens"], split.get("loss")
    learned = f", p50 {loss['p50']}, p95 {loss['p95']}" if loss else ""
    return (
        f"  {name:<10} {split['rows']:>7} rows  tokens p50 {tokens['p50']}, p95 {tokens['p95']}, max {tokens['max']}; "
        f"truncated {split['truncated']}{cut(split)}; answers {split['answer_share']:.0%} of tokens{learned}"
    )


def cut(split: dict[str, Any]) -> str:
    """How many tokens truncation took, where it took any."""
    if not split.get("cut_tokens"):
        return ""
    return f" ({split['truncated_share']:.0%}, {split['cut_tokens']} tokens cut)"


def leak_line(name: str, leakage: dict[str, Any]) -> str:
    found, drawn = leakage[name], leakage.get("random_split", {}).get(name)
    beside = f"; in a random split {drawn['exact']} and {drawn['masked']}" if drawn else ""
    return f"  {name} rows also in train: {found['exact']} exact, {found['masked']} but for numbers and hex{beside}"


def packing_line(packing: dict[str, Any]) -> str:
    counts = f"{packing['rows']} training rows in {packing['sequences']} sequences"
    return f"  packing: {counts} of {packing['length']} tokens, {packing['efficiency']:.1%} full"
