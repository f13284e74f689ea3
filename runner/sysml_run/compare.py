"""One recipe on several machines: a row for each, with what it takes there, whether it fits, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import counts, outlook
from .errors import Problem
from .estimate.hours import Hours
from .estimate.verdict import PARTS, Verdict
from .machine import Machine
from .measures import duration
from .plan import batch, settle
from .prepared import Counted
from .resolve import Resolved
from .summary import table

NONE = "-"


@dataclass(frozen=True)
class Compared:
    """`hardware` as it is written for --hardware; `problems` say why the recipe cannot train there."""

    hardware: str
    problems: tuple[Problem, ...]
    rows: int | None = None
    verdict: Verdict | None = None
    hours: Hours | None = None


def compared(hardware: str, resolved: Resolved, machine: Machine, counted: Counted | None) -> Compared:
    """A valid recipe whose hardware section has been swapped. Raises UsageError for model files that cannot be read."""
    counts.parameters(resolved.recipe)
    recipe = settle(resolved, machine).recipe
    found = outlook.look(recipe, machine, counted)
    return Compared(hardware, (), batch(recipe)["effective"], found.verdict, found.hours)


def text(rows: Sequence[Compared]) -> str:
    """Gigabytes of one device; what was refused is below the table, with its reason."""
    head = ("GB on each device", "rows a step", *PARTS, "total", "available", "verdict", "a step", "hours")
    lines = table([head, *map(_cells, rows)], right=range(1, 2 + len(PARTS) + 2))
    reasons = [
        f"{row.hardware}: {problem.pointer}: {problem.message}" + (f" ({problem.hint})" if problem.hint else "")
        for row in rows
        for problem in row.problems
    ]
    if not all(row.verdict for row in rows if not row.problems):
        reasons.append(f"memory is not known: {outlook.NO_MODEL}")
    if any(row.verdict and row.verdict.word is None for row in rows):
        reasons.append(f"available memory is not known: {outlook.NO_CARD}")
    if any(row.verdict and row.verdict.word == "does not fit" for row in rows):
        reasons.append("what would fit on one of them: sysml-run plan RECIPE --hardware H --fit")
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"


def values(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """As `plan` has them for one machine; null where the model is not known, and where the recipe is refused."""
    return [
        {
            "hardware": row.hardware,
            "rows_per_step": row.rows,
            "memory": row.verdict and outlook.memory(row.verdict),
            "time": row.hours and outlook.time(row.hours),
            "problems": [
                {"pointer": each.pointer, "message": each.message, "hint": each.hint} for each in row.problems
            ],
        }
        for row in rows
    ]


def _cells(row: Compared) -> tuple[str, ...]:
    if row.problems:
        return (row.hardware, *[NONE] * (len(PARTS) + 3), "refused", NONE, NONE)
    parts, ends = [NONE] * (len(PARTS) + 2), NONE
    if row.verdict:
        found = row.verdict.estimate
        sizes = [*(getattr(found, part) for part in PARTS), found.total, row.verdict.available]
        parts = [NONE if size is None else f"{size / outlook.GB:.1f}" for size in sizes]
        ends = row.verdict.word or "not known"
    return (row.hardware, f"{row.rows:,}", *parts, ends, *_times(row.hours))


def _times(found: Hours | None) -> tuple[str, str]:
    if found is None or found.seconds is None:
        return NONE, NONE
    step = " to ".join(map(duration, found.seconds))
    return step, NONE if found.hours is None else f"{found.hours[0]:.1f} to {found.hours[1]:.1f}"
