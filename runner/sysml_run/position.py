"""Where a value stands: pointers into a recipe, and places in a file or on the command line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .errors import Problem

Pointer = tuple[str | int, ...]

PART = re.compile(r'("(?:[^"\\]|\\.)*"|[^."]+)(?:\.(?=.)|$)', re.DOTALL)
BARE = re.compile(r'[^."]+')


@dataclass(frozen=True)
class Position:
    """A place; line and column count from 1 and are None for what no file holds, such as `--set a.b=c`."""

    source: str
    line: int | None = None
    column: int | None = None
    excerpt: str | None = None

    def problem(self, pointer: Pointer, message: str, hint: str | None = None) -> Problem:
        """An error at this place."""
        return Problem(self.source, dotted(pointer), self.line, self.column, message, hint, excerpt=self.excerpt)

    def label(self) -> str:
        """`recipes/x.yaml:16`, or the source alone."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


def dotted(pointer: Pointer) -> str:
    """("datasets", 0, "path") -> "datasets.0.path"; a key that would be read otherwise is put in double quotes."""
    return ".".join(str(part) if isinstance(part, int) or _bare(part) else json.dumps(part) for part in pointer)


def pointer(dotted: str) -> Pointer:
    """The inverse of `dotted`. Raises ValueError for text that is not a pointer."""
    parts: list[str | int] = []
    at = 0
    while at < len(dotted):
        found = PART.match(dotted, at)
        if found is None:
            raise ValueError(f"{dotted!r} is not a key")
        parts.append(_part(found[1]))
        at = found.end()
    return tuple(parts)


def _bare(part: str) -> bool:
    return BARE.fullmatch(part) is not None and not _number(part)


def _number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 10


def _part(text: str) -> str | int:
    if text.startswith('"'):
        return str(json.loads(text))
    return int(text) if _number(text) else text


def value_at(values: Any, dotted: str) -> Any:
    """What stands at a key of plain values. Raises KeyError or IndexError where nothing does."""
    for part in pointer(dotted):
        values = values[part]
    return values
