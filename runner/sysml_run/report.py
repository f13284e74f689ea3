"""Problems -> text, JSON or annotations of a GitHub workflow; the renderers of files are interchangeable."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .errors import STDIN, Problem

Found = Mapping[str, Sequence[Problem]]  # for each file, in the order given on the command line
WIDTH = 120
COLOURS = {"error": "31", "warning": "33", "hint": "36", "place": "1", "trained": "32"}


def text(problems: Sequence[Problem], colour: bool = False) -> str:
    """`path:line:column: pointer: message`, the line with a caret, and the hint, for each problem."""
    return "".join(_problem(problem, colour) for problem in problems)


def files_text(found: Found, colour: bool = False) -> str:
    """The problems of every file, one after the other, and how many there are."""
    return "".join(text(problems, colour) for problems in found.values()) + f"{_count(found)}\n"


def files_json(found: Found, colour: bool = False) -> str:
    """`{"files": [{"path", "problems": [{"line", "column", "pointer", "message", "hint", "severity"}]}]}`."""
    files = [{"path": path, "problems": [_fields(problem) for problem in found[path]]} for path in found]
    return json.dumps({"files": files}, indent=2, ensure_ascii=False) + "\n"


def files_github(found: Found, colour: bool = False) -> str:
    """Workflow commands, which GitHub shows at the lines of a pull request; the count goes to the log."""
    return "".join(_annotation(problem) for problems in found.values() for problem in problems) + f"{_count(found)}\n"


def wants_colour(stream: TextIO) -> bool:
    """Colour is for terminals whose user has not set NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def painted(words: str, role: str, colour: bool) -> str:
    return f"\x1b[{COLOURS[role]}m{words}\x1b[0m" if colour else words


def _count(found: Found) -> str:
    severities = [problem.severity for problems in found.values() for problem in problems]
    counts = [(severities.count(severity), severity) for severity in COLOURS if severity in severities]
    return f"{_several(len(found), 'recipe')}: {', '.join(_several(*count) for count in counts) or 'no problems'}"


def _several(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _annotation(problem: Problem) -> str:
    """https://docs.github.com/actions/reference/workflow-commands-for-github-actions#setting-an-error-message"""
    place = {"file": problem.source, "line": problem.line, "col": problem.column, "title": problem.pointer}
    if problem.source == STDIN:  # no file that lines could be shown in
        place = {"title": f"{STDIN}:{problem.line}:{problem.column} {problem.pointer}".rstrip()}
    written = ",".join(f"{name}={_property(str(value))}" for name, value in place.items() if value not in (None, ""))
    message = problem.message + (f"\n{problem.hint}" if problem.hint else "")
    return f"::{problem.severity} {written}::{_data(message)}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _fields(problem: Problem) -> dict[str, Any]:
    names = ("source", "line", "column", "pointer", "message", "hint", "severity")
    return {name: getattr(problem, name) for name in names}


def _problem(problem: Problem, colour: bool) -> str:
    place = problem.source if problem.line is None else f"{problem.source}:{problem.line}:{problem.column}"
    severity = "warning: " if problem.severity == "warning" else ""
    subject = f"{problem.pointer}: " if problem.pointer else ""
    message = painted(f"{severity}{subject}{printable(problem.message)}", problem.severity, colour)
    lines = [f"{painted(printable(place), 'place', colour)}: {message}"]
    if problem.excerpt is not None and problem.column is not None:
        lines += [f"    {line}" for line in _excerpt(problem.excerpt, problem.column - 1)]
    if problem.hint:
        lines.append(f"  {painted('hint:', 'hint', colour)} {printable(problem.hint)}")
    return "\n".join(lines) + "\n"


def _excerpt(line: str, at: int) -> tuple[str, str]:
    """The part of the line around character `at`, and a caret under it."""
    start = max(0, at - WIDTH // 2) if len(line) > WIDTH else 0
    seen = printable(line[start : start + WIDTH])
    return seen, " " * sum(_columns(character) for character in seen[: at - start]) + "^"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(line: str) -> str:
    """One character for one; what would move the cursor or change the terminal becomes a blank or a question mark."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "?" for one in line)
