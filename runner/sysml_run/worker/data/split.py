"""Which side each row goes to, decided by content and seed alone.

The rule. Rows that agree in `group_by` form a group; without it each row is one. Groups stand in the order of
sha256(seed, group key). Each side's quota is divided over the values of `stratify_by` by largest remainder. Test, then
validation, walk the order and take a whole group whenever that brings the side nearer to its quotas than leaving it, so
a group that would overshoot by more than it fills is passed over. The rest is training. A row's place in the order
does not depend on other rows: adding some moves others across only near the end of a side's quota.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from sysml_run.errors import DataError
from sysml_run.recipe import Split

from .masking import priority

Stratum = Hashable


@dataclass
class Group:
    """Rows that stay together, by number, and how many of them each stratum has."""

    rank: tuple[bytes, int]
    rows: list[int] = field(default_factory=list)
    strata: Counter[Stratum] = field(default_factory=Counter)


def assign(split: Split, seed: int, keys: Sequence[bytes], strata: Sequence[Stratum]) -> list[str]:
    """The side of each row; `keys` are the rows' group keys, `strata` their values of `stratify_by`.

    DataError where a side that was asked for would be empty, or training would.
    """
    groups = grouped(seed, keys, strata, together=split.group_by is not None)
    sides = ["train"] * len(keys)
    totals = Counter(strata)
    for name, share in (("test", split.test), ("validation", split.validation)):
        if share:
            groups = take(name, groups, quotas(share, totals), sides)
    if "train" not in sides:
        raise DataError(f"no row is left to train on: {empty_hint(split, len(keys))}", "hold out fewer rows")
    for name, share in (("validation", split.validation), ("test", split.test)):
        if share and name not in sides:
            raise DataError(
                f"split.{name} would be empty: {empty_hint(split, len(keys))}", "hold out more, or group less"
            )
    return sides


def grouped(seed: int, keys: Sequence[bytes], strata: Sequence[Stratum], *, together: bool) -> list[Group]:
    """Groups in their order; equal rows that need not stay together follow each other as they came."""
    groups: dict[bytes | tuple[bytes, int], Group] = {}
    for number, (key, stratum) in enumerate(zip(keys, strata, strict=True)):
        name = key if together else (key, number)
        group = groups.setdefault(name, Group((priority(seed, key), 0 if together else number)))
        group.rows.append(number)
        group.strata[stratum] += 1
    return sorted(groups.values(), key=lambda group: group.rank)


def quotas(share: float, totals: Counter[Stratum]) -> Counter[Stratum]:
    """Rows a side should have of each stratum: a share below 1, a number of rows from 1 on."""
    rows = totals.total()
    wanted = min(rows, round(share) if share >= 1 else max(1, math.floor(share * rows + 0.5)))
    exact = {stratum: wanted * count / rows for stratum, count in totals.items()}
    found = Counter({stratum: math.floor(value) for stratum, value in exact.items()})
    by_rest = sorted(exact, key=lambda stratum: (math.floor(exact[stratum]) - exact[stratum], str(stratum)))
    found.update(by_rest[: wanted - found.total()])
    return found


def take(name: str, groups: list[Group], need: Counter[Stratum], sides: list[str]) -> list[Group]:
    """Give groups to the side `name` until its needs are met; the groups that are left."""
    left, open_strata = [], sum(count > 0 for count in need.values())
    for group in groups:
        if not open_strata or change(group, need) >= 0:
            left.append(group)
            continue
        for stratum, count in group.strata.items():
            open_strata -= need[stratum] > 0 >= need[stratum] - count
            need[stratum] -= count
        for row in group.rows:
            sides[row] = name
    return left


def change(group: Group, need: Counter[Stratum]) -> int:
    """How much further from its quotas the side would be with this group; below 0 is nearer."""
    return sum(abs(need[stratum] - count) - abs(need[stratum]) for stratum, count in group.strata.items())


def empty_hint(split: Split, rows: int) -> str:
    by = f" grouped by {split.group_by}" if split.group_by else ""
    return f"{rows} rows{by}, validation {split.validation:g}, test {split.test:g}"
