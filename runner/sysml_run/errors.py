"""Problems as data, and the one family of exceptions that a user can cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Severity = Literal["error", "warning"]
STDIN = "<stdin>"  # the source of what was read from standard input


@dataclass(frozen=True)
class Problem:
    """Something wrong in a recipe; `pointer` is dotted, "" for the whole; line and column count from 1."""

    source: str
    pointer: str
    line: int | None
    column: int | None
    message: str
    hint: str | None = None
    severity: Severity = "error"
    excerpt: str | None = None


class SysmlError(Exception):
    """A failure the user can mend: what is wrong, and a hint at what to do or type."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SysmlError):
    """The command line asks for something that is not there or makes no sense."""

    exit_code = 2


class RecipeError(SysmlError):
    """A recipe cannot be used; `problems` says why, in file order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        where = first.source if first.line is None else f"{first.source}:{first.line}:{first.column}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{where}: {first.message}{more}", first.hint)
        self.problems = tuple(problems)


class StageError(SysmlError):
    """A stage of a run failed for a reason the user can act on."""


class DataError(StageError):
    """The rows are missing, unreadable or unfit."""


class InstallError(SysmlError):
    """A part of sysml-run itself is missing from where it is installed."""
