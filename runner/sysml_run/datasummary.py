"""The data report in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NAMED = 5
BALANCED = 8  # values of a field
TITLES = ("", "rows", "tokens p50", "p95", "max", "cut", "answers p50", "p95", "of tokens")


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Rows, template, datasets that lost some, files passed over, what the recipe did, splits, copies, warnings."""
    rows = report["rows"]
    reasons = f"; left out: {counted(rows['dropped'])}" if rows["dropped"] else ""
    yield f"prepare: {rows['read']} rows read, {rows['kept']} kept{reasons}"
    if "template" in report:
        yield f"  template: {report['template']['name']}, {report['template'].get('origin', '')}".rstrip(", ")
    yield from datasets(report.get("datasets", []))
    yield from passed_over(report["files"])
    yield from chosen(report)
    held = {name: split for name, split in report["splits"].items() if split["rows"]}
    yield from table([TITLES, *(cells(name, split) for name, split in held.items())])
    yield from (cut(name, split) for name, split in held.items() if split.get("cut_tokens"))
    yield from (balance(field, values) for field, values in report.get("balance", {}).items())
    same = report["duplicates"]
    yield f"  copies: {same['exact']} rows repeat another word for word, {same['masked']} but for numbers and hex"
    yield from (leak(name, held[name]["rows"], report["leakage"]) for name in held if name in report["leakage"])
    if "packing" in report:
        yield packing_line(report["packing"])
    yield from (f"  warning: {warning}" for warning in report["warnings"])


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def datasets(found: list[dict[str, Any]]) -> Iterator[str]:
    """What each of several datasets gave, and of any dataset the first row of each wrong shape."""
    for each in found:
        name = f"  datasets.{each['dataset']}"
        reasons = f"; left out: {counted(each['dropped'])}" if each["dropped"] else ""
        if len(found) > 1:
            yield f"{name} ({each['type']}): {each['read']} rows read, {each['kept']} kept{reasons}"
        yield from (f"{name}: {reason}: the first is row {where}" for reason, where in each["first"].items())
        if any(" has " in where for where in each["first"].values()):
            yield f"{name}: type {each['type']} wants {each['wants']}"


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


def table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as what stands in them; the first is set left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        right = "  ".join(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))
        yield f"  {name.ljust(widths[0])}  {right}"


def cells(name: str, split: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table, under TITLES."""
    tokens, loss = split["tokens"], split["loss"]
    numbers = (split["rows"], tokens["p50"], tokens["p95"], tokens["max"], split["truncated"], loss["p50"], loss["p95"])
    return (name, *(f"{number:,}" for number in numbers), f"{split['answer_share']:.0%}")


def cut(name: str, split: dict[str, Any]) -> str:
    """What truncation took of a split."""
    share = f"{split['truncated']} rows ({split['truncated_share']:.0%})"
    return f"  {name}: {share} are cut to prompt.sequence_len and lose {split['cut_tokens']:,} tokens"


def balance(field: str, values: Mapping[str, Mapping[str, int]]) -> str:
    """The commonest values of a field, over all splits."""
    counts = [f"{value} {sum(sides.values()):,}" for value, sides in values.items()]
    more = f" and {len(counts) - BALANCED} more" if len(counts) > BALANCED else ""
    return f"  {field}: {', '.join(counts[:BALANCED])}{more}"


def leak(name: str, rows: int, leakage: dict[str, Any]) -> str:
    """Rows of a held-out split that stand in training, and how many would after a random split."""
    drawn = leakage.get("random_split", {}).get(name)
    beside = f"; in a random split {' and '.join(shares(drawn, rows))}" if drawn else ""
    exact, masked = shares(leakage[name], rows)
    return f"  {name} rows also in train: {exact}, but for numbers and hex {masked}{beside}"


def shares(found: Mapping[str, int], rows: int) -> list[str]:
    return [f"{found[kind]} ({found[kind] / rows:.0%})" for kind in ("exact", "masked")]


def packing_line(packing: dict[str, Any]) -> str:
    counts = f"{packing['rows']} training rows in {packing['sequences']} sequences"
    return f"  packing: {counts} of {packing['length']} tokens, {packing['efficiency']:.1%} full"
