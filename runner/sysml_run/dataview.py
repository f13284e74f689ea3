"""The data report and rows as the model sees them -> text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .datasummary import lines
from .report import painted, printable

OPEN, CLOSE = "\N{LEFT DOUBLE ANGLE BRACKET}", "\N{RIGHT DOUBLE ANGLE BRACKET}"


def text(report: dict[str, Any], shown: Sequence[Mapping[str, Any]], *, colour: bool) -> str:
    """The report, then each row; what counts in the loss stands in double brackets, and in colour on a terminal."""
    found = [*lines(report), *(line for row in shown for line in ("", *_row(row, colour)))]
    return "\n".join(found) + "\n"


def _row(row: Mapping[str, Any], colour: bool) -> Iterator[str]:
    title = f"{row['id']}: {row['tokens']} tokens, {row['loss_tokens']} of them in the loss {OPEN}like this{CLOSE}"
    yield painted(printable(title), "place", colour)
    if "each" in row:
        yield from (_token(at, token, colour) for at, token in enumerate(row["each"]))
    else:
        yield "".join(_piece(piece, colour) for piece in row["pieces"])


def _piece(piece: Mapping[str, Any], colour: bool) -> str:
    body = "\n".join(printable(line) for line in piece["text"].split("\n"))
    return painted(f"{OPEN}{body}{CLOSE}", "trained", colour) if piece["trained"] else body


def _token(at: int, token: Mapping[str, Any], colour: bool) -> str:
    mark = f"{OPEN}{CLOSE}" if token["trained"] else "  "
    line = f"{at:>6}  {token['id']:>7}  {mark}  {token['text']!r}"
    return painted(line, "trained", colour) if token["trained"] else line
