"""A diff -> text for a terminal, markdown for a pull request, JSON; the three take the same diff."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from . import diffrows, excerpt
from .diff import Diff
from .diffrows import Row
from .report import printable

WIDTH = 120
CELL = 28  # characters of a value beside another; longer ones get lines of their own
TEXT = 100  # characters of a value in a table of markdown
SAME = "no difference"
LABEL = re.compile(r"[AB]:[0-9-]+|default|derived|-")


def lone(name: str, word: str, form: str) -> str:
    """Of a recipe that only one side has: `word` is new or deleted."""
    if form == "json":
        ends = {"from": None, "to": name} if word == "new" else {"from": name, "to": None}
        return json.dumps({**ends, "changed": [], "derived": []}, indent=2, ensure_ascii=False) + "\n"
    return f"**{_code(name)} is {word}**\n" if form == "markdown" else f"{printable(name)} is {word}\n"


def failed(before: str, after: str) -> str:
    """Markdown in the place of a diff that cannot be made."""
    return f"**{_code(before)} → {_code(after)} cannot be compared; the log says why**\n"


def as_json(found: Diff) -> str:
    """`{"from", "to", "changed": [{"pointer", "from", "to", …}], "derived": [{"name", "from", "to"}]}`."""
    value = {
        "from": found.before.title,
        "to": found.after.title,
        "changed": [diffrows.plain(change) for change in found.changed],
        "derived": [{"name": item.name, "from": item.before, "to": item.after} for item in found.derived],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def text(found: Diff) -> str:
    """Both tables in aligned columns, texts as the lines that differ, at most 120 columns where names allow it."""
    changed, facts = diffrows.changes(found), diffrows.consequences(found)
    head = [f"A  {printable(found.before.title)}", f"B  {printable(found.after.title)}"]
    if not changed and not facts:
        return "\n".join([*head, "", SAME]) + "\n"
    blocks = [head, table("changed", changed), table("what follows", facts)]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def table(title: str, rows: Sequence[Row]) -> list[str]:
    """Aligned lines under a head, with what is long or said of a row below it; none without rows."""
    if not rows:
        return []
    short = [row for row in rows if not _long(row)]
    cells = [(title, "A", "B", "from", ""), *(_cells(row) for row in short)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(len(row.name) + 2 for row in rows)
    lines = [_aligned(cells[0] if rows[0].before_source else cells[0][:3], widths)]
    for row in rows:
        lines += [_aligned(_cells(row), widths), *_below(row)]
    return lines


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=False)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    values = ("", "") if _long(row) else (row.before, row.after)
    return (f"  {row.name}", *map(printable, values), *map(printable, (row.before_source, row.after_source)))


def _long(row: Row) -> bool:
    both = (row.before, row.after)
    return bool(row.before_source) and any(len(value) > CELL or "\n" in value for value in both)


def _below(row: Row) -> Iterator[str]:
    if _long(row):
        yield from (f"      {printable(line)}" for line in excerpt.lines(row.before, row.after, WIDTH - 6))
    yield from (f"      {printable(reason)}" for reason in row.reasons)


def markdown(found: Diff) -> str:
    """Two tables, and the changed lines of long texts below them; every value is code, so nothing in it is markup."""
    changed, facts = diffrows.changes(found), diffrows.consequences(found)
    head = f"**{_code(found.before.title)} → {_code(found.after.title)}**"
    if not changed and not facts:
        return f"{head}\n\n{SAME}\n"
    blocks = [head, _columns(("changed", "A", "B", "from A", "from B"), [_changed(row) for row in changed])]
    blocks += [_fenced(row) for row in changed if _far(row)]
    blocks.append(_columns(("what follows", "A", "B"), [_followed(row) for row in facts]))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows))


def _changed(row: Row) -> list[str]:
    values = ["see below"] * 2 if _far(row) else [_cell(row.before), _cell(row.after)]
    reasons = dict(reason.split(": ", 1) for reason in row.reasons)
    sources = zip(diffrows.LETTERS, (row.before_source, row.after_source), strict=True)
    labels = [f"derived: {_escaped(reasons[side])}" if side in reasons else _where(label) for side, label in sources]
    return [_cell(row.name), *values, *labels]


def _followed(row: Row) -> list[str]:
    return [row.name.strip(), row.before, row.after]


def _far(row: Row) -> bool:
    return any("\n" in value or len(value) > TEXT for value in (row.before, row.after))


def _where(label: str) -> str:
    return label if LABEL.fullmatch(label) else _cell(label)


def _cell(value: str) -> str:
    """A code span in a table, whose columns are told apart before its code (https://github.github.com/gfm/#tables)."""
    return _code(value).replace("|", "\\|")


def _code(value: str) -> str:
    """A code span (https://github.github.com/gfm/#code-spans): its fence is longer than any run of backticks in it."""
    line = printable(value)
    fence = "`" * (max(map(len, re.findall(r"`+", line)), default=0) + 1)
    gap = " " if "`" in line else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def _escaped(value: str) -> str:
    """Words of the plan in a cell, which may quote the recipe."""
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", printable(value))


def _fenced(row: Row) -> str:
    lines = "\n".join(map(printable, excerpt.lines(row.before, row.after, WIDTH)))
    return f"{_code(row.name)}\n\n```diff\n{lines}\n```"  # no line begins with a fence: each has its sign in front
