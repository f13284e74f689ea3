"""Which side each row goes to, decided by content and seed alone.

Rows that agree in `group_by` form a group; without it rows of the same text do. A group's place in [0, 1) is
sha256(seed, group key), which no other row can change. The rules:

- A dataset's `use_as` fixes the side of its rows; the others are divided.
- A share without `stratify_by` is an interval of places: test the first, validation the next, training the rest. Adding
  rows moves no other across. The side's size differs from its share by chance: by about sqrt(share x groups).
- A number of rows, and every share with `stratify_by`, is a quota for each value: groups in the order of their places
  are taken whenever that brings the side nearer to its quotas. Sizes are exact where groups are small, and adding rows
  moves a few others near the end of a quota.
- A side of a share, or training, to which no group falls gets one group of the largest side.
- With folds, what test leaves is dealt to them whole group by whole group, the largest first, each to the fold that has
  the least of its values so far; one fold is validation, the others are training. All folds see the same deal, so that
  each row is validated once. Rows of the same text are then one group even with `stratify_by`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysml_run.errors import DataError
from sysml_run.recipe import CrossValidation, Split

from .columns import Ints, same
from .masking import priority

SIDES = ("train", "validation", "test")
HELD = (2, 1)  # test takes its rows before validation does
ONE_GROUP = "every row asks the same; group by another field or leave group_by out"
Sides = NDArray[np.int8]


@dataclass(frozen=True)
class Groups:
    """Groups in the order of their places; `of` is each row's group."""

    of: Ints
    place: NDArray[np.float64]


def assign(
    split: Split,
    seed: int,
    keys: NDArray[np.uint64],
    strata: NDArray[Any] | None,
    fixed: Sides | None = None,
    folds: CrossValidation | None = None,
) -> Sides:
    """The side of each row as an index of SIDES; `keys` are digests of the rows' groups.

    `strata` are codes of the values of `stratify_by`; `fixed` has -1 where `use_as` says nothing. DataError where a
    side that was asked for would be empty, or training would.
    """
    sides = np.full(len(keys), -1, np.int8) if fixed is None else fixed.copy()
    rows = np.flatnonzero(sides < 0)
    if len(rows):
        sides[rows] = divide(split, seed, keys[rows], None if strata is None else strata[rows], folds)
    if not (sides == 0).any():
        raise DataError(f"no row is left to train on: {hint(split, keys)}", "hold out fewer rows")
    return sides


def divide(
    split: Split,
    seed: int,
    keys: NDArray[np.uint64],
    strata: NDArray[Any] | None,
    folds: CrossValidation | None = None,
) -> Sides:
    groups = grouped(seed, keys, strata, together=split.group_by is not None or folds is not None)
    taken = np.zeros(len(groups.place), np.int8)
    shares = {2: split.test, 1: 0.0 if folds else split.validation}
    by_place = [side for side in HELD if strata is None and 0 < shares[side] < 1]
    low = 0.0
    for side in by_place:
        taken[(groups.place >= low) & (groups.place < low + shares[side])] = side
        low += shares[side]
    at_least_one(taken, by_place)
    codes = np.zeros(len(keys), np.int64) if strata is None else strata
    for side in HELD:
        if shares[side] and side not in by_place:
            totals = Counter(dict(enumerate(np.bincount(codes).tolist())))
            fill(side, taken, Contents(groups, codes), quotas(shares[side], totals))
        if shares[side] and side not in taken:
            message = f"split.{SIDES[side]} would be empty: {hint(split, keys)}"
            alone = split.group_by and len(groups.place) == 1
            raise DataError(message, ONE_GROUP if alone else "hold out more, or group less")
    if folds:
        free = np.flatnonzero(taken == 0)
        if len(free) < folds.folds:
            by = f" by {split.group_by}" if split.group_by else ""
            message = f"{folds.folds} folds take as many groups, and beside test there are {len(free)}{by}"
            raise DataError(message, "write fewer folds, or group less")
        numbers = deal(free.tolist(), Contents(groups, codes), folds.folds)
        taken[free[numbers == (folds.fold or 1) - 1]] = SIDES.index("validation")
    return taken[groups.of]


def deal(free: list[int], contents: Contents, folds: int) -> Ints:
    """The fold, from 0 on, of each of these groups."""
    found = {group: contents(group) for group in free}
    totals, held = Counter[int](), [Counter[int]() for _ in range(folds)]
    for counts in found.values():
        totals.update(dict(counts))
    dealt = {}
    for group in sorted(free, key=lambda group: -sum(count for _, count in found[group])):
        counts = found[group]
        costs = [
            (sum(count * has[stratum] / totals[stratum] for stratum, count in counts), has.total()) for has in held
        ]
        dealt[group] = fold = costs.index(min(costs))
        held[fold].update(dict(counts))
    return np.array([dealt[group] for group in free])


def grouped(seed: int, keys: NDArray[np.uint64], strata: NDArray[Any] | None, *, together: bool) -> Groups:
    """Groups with their places; with strata, equal rows that need not stay together are groups of their own."""
    names = same(keys)
    representative = np.unique(names, return_index=True)[1]
    ranks = [int.from_bytes(priority(seed, keys[row].tobytes())[:8]) for row in representative.tolist()]
    rank = np.array(ranks, np.uint64)
    if not together and strata is not None:
        names, rank = np.arange(len(keys)), rank[names]
    order = np.argsort(rank, kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return Groups(position[names], rank[order] / 2.0**64)


def at_least_one(taken: Sides, held: list[int]) -> None:
    """Give training and each of these sides that has no group one of the largest side: the last, or else the first."""
    for side in (0, *held):
        counts = np.bincount(taken, minlength=len(SIDES))
        if not counts[side] and counts.max() > 1:
            most = np.flatnonzero(taken == counts.argmax())
            taken[most[-1] if side == 0 else most[0]] = side


def quotas(share: float, totals: Counter[int]) -> Counter[int]:
    """Rows a side should have of each stratum: a share below 1, a number of rows from 1 on; by largest remainder."""
    rows = totals.total()
    wanted = min(rows, round(share) if share >= 1 else max(1, math.floor(share * rows + 0.5)))
    exact = {stratum: wanted * count / rows for stratum, count in totals.items()}
    found = Counter({stratum: math.floor(value) for stratum, value in exact.items()})
    by_rest = sorted(exact, key=lambda stratum: (math.floor(exact[stratum]) - exact[stratum], stratum))
    found.update(by_rest[: wanted - found.total()])
    return found


class Contents:
    """How many rows of each stratum every group has, in three flat lists."""

    def __init__(self, groups: Groups, codes: NDArray[Any]) -> None:
        kinds = int(codes.max()) + 1
        pairs, counts = np.unique(groups.of * kinds + codes, return_counts=True)
        self.starts = np.searchsorted(pairs, np.arange(len(groups.place) + 1) * kinds).tolist()
        self.strata, self.counts = (pairs % kinds).tolist(), counts.tolist()

    def __call__(self, group: int) -> list[tuple[int, int]]:
        part = slice(self.starts[group], self.starts[group + 1])
        return list(zip(self.strata[part], self.counts[part], strict=True))


def fill(side: int, taken: Sides, contents: Contents, need: Counter[int]) -> None:
    """Give free groups to the side, in their order, until its needs are met."""
    unmet = sum(count > 0 for count in need.values())
    for group in np.flatnonzero(taken == 0).tolist():
        if not unmet:
            return
        found = contents(group)
        if change(found, need) >= 0:
            continue
        for stratum, count in found:
            unmet -= need[stratum] > 0 >= need[stratum] - count
            need[stratum] -= count
        taken[group] = side


def change(found: list[tuple[int, int]], need: Counter[int]) -> int:
    """How much further from its quotas the side would be with a group of these counts; below 0 is nearer."""
    return sum(abs(need[stratum] - count) - abs(need[stratum]) for stratum, count in found)


def hint(split: Split, keys: NDArray[np.uint64]) -> str:
    number = len(np.unique(keys, axis=0))
    groups = (
        f"in {number} group{'s'[: number != 1]} by {split.group_by}"
        if split.group_by
        else f"{number} of them different"
    )
    return f"{len(keys)} rows, {groups}, validation {split.validation:g}, test {split.test:g}"
