"""The figures of the folds of one cross-validation, put together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .recipe import Recipe

NAME = "cross_validation.json"
SIDES = ("before", "after")


def runs(recipe: Recipe) -> int:
    """How many a recipe makes: one for each fold, unless it names the fold."""
    found = recipe.evaluation.cross_validation
    return 1 if found is None or found.fold is not None else found.folds


def folder(fold: int) -> str:
    """The run directory of a fold, counted from 1, in that of the whole."""
    return f"fold-{fold}"


def gather(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`{"folds", "rows", "runs", "before": {metric: {"mean", "std", "values"}}, "after"}` of `evaluation.json` of each.

    `values` has a place for every fold; `std` is the sample's standard deviation, null where fewer than two folds have
    a figure. Test rows, the same in every fold, are beside them in `test`.
    """
    found: dict[str, Any] = {
        "folds": len(evaluations),
        "rows": sum(one["rows"] for one in evaluations),
        "runs": [folder(number) for number in range(1, len(evaluations) + 1)],
        **{side: _spread([one[side] for one in evaluations]) for side in SIDES},
    }
    if all("test" in one for one in evaluations):
        found["test"] = {side: _spread([one["test"][side] for one in evaluations]) for side in SIDES}
    return found


def means(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The means in the form of an `evaluation.json`."""
    sides = {side: {name: one["mean"] for name, one in summary[side].items()} for side in SIDES}
    return sides | ({"test": means(summary["test"])} if "test" in summary else {})


def _spread(folds: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    names = dict.fromkeys(name for one in folds for name in one)
    return {name: _one([one.get(name) for one in folds]) for name in names}


def _one(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "std": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }
