"""Why a YAML parser most likely refused a text: the place to look at, what is wrong there, and what to write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

CONTENT = re.compile(r" *[^ #\t]")
KEY = re.compile(r""" *(- +)*["']?[\w.-]+["']? *:( |$)""")
VALUE = re.compile(r""": +[^ #]|^ *- +[^:#]+$""")  # a line whose key or dash has its value already
GLUED_DASH = re.compile(r" *-(?=[A-Za-z_][\w.-]*:( |$))")
GLUED_COLON = re.compile(r" *(?:- +)*(?P<key>[\w.-]+):(?P<value>\S.*)")
CONFLICT = re.compile(r"<{7} |>{7} ")


class Mark(Protocol):
    """A place as PyYAML counts: from 0."""

    line: int
    column: int


@dataclass(frozen=True)
class Slip:
    """Line and column count from 0."""

    line: int
    column: int
    message: str
    hint: str | None


def slip(lines: Sequence[str], problem: str, context: str | None, at: Mark | None, start: Mark | None) -> Slip | None:
    """What is wrong where the parser says `problem` of `at`, reading the `context` that begins at `start`.

    None when it names no place.
    """
    unfinished = "end of stream" in problem or "could not find expected ':'" in problem
    mark = (start if unfinished else at) or at or start
    if mark is None:
        return None
    line = lines[mark.line] if mark.line < len(lines) else ""
    known = _conflict(lines) or _tab(mark, line) or _dash(lines, mark) or _colon(mark, line, problem)
    return (
        known
        or _glued(lines, mark, problem)
        or _indent(lines, mark, problem)
        or _as_said(mark, line, problem, context, start)
    )


def _conflict(lines: Sequence[str]) -> Slip | None:
    at = next((number for number, line in enumerate(lines) if CONFLICT.match(line)), None)
    hint = "keep one side, and remove the lines of <<<<<<<, ======= and >>>>>>>"
    return None if at is None else Slip(at, 0, "a merge conflict is left here", hint)


def _tab(mark: Mark, line: str) -> Slip | None:
    tab = line[: mark.column + 1].lstrip(" ").startswith("\t")
    return Slip(mark.line, mark.column, "a tab cannot indent YAML", "use spaces") if tab else None


def _dash(lines: Sequence[str], mark: Mark) -> Slip | None:
    """On the line itself or the one before, which then reads as a key of its own."""
    for number in [mark.line, *_before(lines, mark.line)[-1:]]:
        found = GLUED_DASH.match(lines[number]) if number < len(lines) else None
        if found:
            return Slip(number, found.end() - 1, "no item starts here", "a dash wants a blank after it")
    return None


def _glued(lines: Sequence[str], mark: Mark, problem: str) -> Slip | None:
    """A colon with no blank after it makes no key; the parser notices there, or at the next line's colon."""
    unfinished = "could not find expected ':'" in problem
    number = next(iter([mark.line] if unfinished else _before(lines, mark.line)[-1:]), len(lines))
    found = GLUED_COLON.match(lines[number]) if number < len(lines) else None
    if found is None or not (unfinished or "mapping values" in problem) or ": " in found["value"]:
        return None
    hint = f"a colon wants a blank after it: {found['key']}: {found['value']}"
    return Slip(number, found.end("key"), f"{found['key']} is no key", hint)


def _colon(mark: Mark, line: str, problem: str) -> Slip | None:
    """One more colon on a line whose key has its own."""
    key = KEY.match(line)
    if key and "mapping values" in problem and mark.column >= key.end():
        return Slip(mark.line, mark.column, f"not YAML: {problem}", 'text that holds ": " must be in quotes')
    return None


def _indent(lines: Sequence[str], mark: Mark, problem: str) -> Slip | None:
    """Where the cause is the indent of this line, which starts with a key."""
    before = _before(lines, mark.line)
    if not before or mark.line >= len(lines) or not KEY.match(lines[mark.line]):
        return None
    line, last = lines[mark.line], lines[before[-1]]
    here, column = _depth(line), len(line) - len(line.lstrip(" "))
    if "mapping values" in problem and here > _depth(last) and VALUE.search(last):
        message = f"indented by {here}, more than line {before[-1] + 1} ({_depth(last)}), which has its value already"
        return Slip(mark.line, column, message, "keys of one section have the same indent")
    known = sorted({_depth(lines[number]) for number in before})
    if "did not find expected key" in problem and here not in known:
        message = f"indented by {here}; the lines before it by {' or '.join(map(str, known))}"
        return Slip(mark.line, column, message, "use one of these")
    return None


def _as_said(mark: Mark, line: str, problem: str, context: str | None, start: Mark | None) -> Slip:
    since = "" if start is None or start.line == mark.line else f", {context} that starts on line {start.line + 1}"
    return Slip(mark.line, mark.column, f"not YAML: {problem}{since}", _cause(problem, line))


def _before(lines: Sequence[str], at: int) -> list[int]:
    """The lines above that hold more than a comment."""
    return [number for number, line in enumerate(lines[:at]) if CONTENT.match(line)]


def _depth(line: str) -> int:
    """Columns before the key of a line; the dash of an item counts as indent."""
    return len(line) - len(line.lstrip(" -"))


def _cause(problem: str, line: str) -> str | None:
    """The usual reason behind a parser's message."""
    if "mapping values" in problem:
        return 'text that holds ": " must be in quotes; otherwise check the indent'
    if "{{" in line or "{%" in line:
        return 'put a template in quotes: "{{ ... }}"'
    if "cannot start any token" in problem:
        return "text that starts with this character must be in quotes"
    if "did not find expected" in problem or "could not find expected" in problem:
        return "check the indent, the colons and the closing brackets and quotes"
    return None
