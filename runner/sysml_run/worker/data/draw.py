"""Which rows are trained on how often: repeats, the weight of each dataset, balance between classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysml_run.recipe import Balance, Recipe, Split

from .columns import Columns, Ints, first
from .masking import priority
from .split import SIDES, Sides


@dataclass
class Drawn:
    """`times` is how often each row stands in its side; rows that stand nowhere are counted in `dropped`."""

    times: Ints
    dropped: dict[str, int] = field(default_factory=dict)


def unrepeated(split: Split, columns: Columns) -> NDArray[np.bool_]:
    """Rows that `dedupe` keeps: the first of those that are the same."""
    if split.dedupe == "none":
        return np.ones(len(columns), bool)
    return first(columns.masked if split.dedupe == "masked" else columns.exact)


def draw(recipe: Recipe, columns: Columns, sides: Sides, classes: NDArray[np.int32] | None) -> Drawn:
    """Weights and balance of the training rows; `classes` are the codes of `split.balance.by`.

    A weight's whole part is how often every row of the dataset stands in training; the fraction is the share of its
    rows, by content, that stand there once more.
    """
    drawn = Drawn(np.ones(len(columns), np.int64))
    train = sides == SIDES.index("train")
    for number, dataset in enumerate(recipe.datasets):
        rows = np.flatnonzero(train & (columns.dataset == number))
        drawn.times[rows] = times(dataset.weight, recipe.seed, columns.exact[rows])
    left_out(drawn, "weight")
    if recipe.split.balance is not None and classes is not None:
        balance(recipe.split.balance, recipe.seed, columns.exact, np.flatnonzero(train), classes, drawn.times)
        left_out(drawn, "balance")
    return drawn


def left_out(drawn: Drawn, reason: str) -> None:
    """Count what has just come to stand nowhere."""
    missing = int((drawn.times == 0).sum()) - sum(drawn.dropped.values())
    if missing:
        drawn.dropped[reason] = missing


def places(seed: int, salt: bytes, exact: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, by content; `salt` tells draws apart."""
    found = [int.from_bytes(priority(seed, salt + row.tobytes())[:8]) for row in exact]
    return np.array(found, np.uint64) / 2.0**64


def times(weight: float, seed: int, exact: NDArray[np.uint64]) -> Ints:
    """How often each row of a dataset of this weight is drawn."""
    whole = math.floor(weight)
    found = np.full(len(exact), whole, np.int64)
    if weight != whole:
        found += places(seed, b"weight", exact) < weight - whole
    return found


def balance(chosen: Balance, seed: int, exact: NDArray[np.uint64], train: Ints, classes: Any, times: Ints) -> None:
    """Take rows of large classes out of `times`, last places first, until none exceeds its bound."""
    sizes = np.bincount(classes[train], weights=times[train]).astype(np.int64)
    most = math.floor(chosen.max_ratio * sizes[sizes > 0].min())
    for code in np.flatnonzero(sizes > most).tolist():
        rows = train[classes[train] == code]
        copies = np.repeat(rows, times[rows])
        earlier = np.arange(len(copies)) - np.searchsorted(copies, copies)  # first copies of all rows go first
        order = np.lexsort((np.repeat(places(seed, b"balance", exact[rows]), times[rows]), earlier))
        times[rows] = 0
        np.add.at(times, copies[order[:most]], 1)
