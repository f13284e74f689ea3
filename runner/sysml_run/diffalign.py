"""Items of two lists -> which belong together, so that an item put in front does not change all that follow it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import schema
from .position import Pointer

NOWHERE = -1
Places = tuple[int, int]  # of an item in either list, or NOWHERE
Score = tuple[
    int, int, int, float
]  # equal items, equal required keys, pairs, shares of equal keys; the first counts most
MOST = 100_000  # comparisons of two items; longer lists are taken place by place


def unordered(at: Pointer) -> bool:
    """Whether the schema says that the order of this list has no meaning (`x-set`)."""
    return any(one.get("x-set", False) for node in schema.find(at) for one in schema.branches(node))


def same(old: Sequence[Any], new: Sequence[Any], at: Pointer) -> bool:
    """Whether two lists mean the same."""
    return old == new or (unordered(at) and sorted(map(_text, old)) == sorted(map(_text, new)))


def places(old: Sequence[Any], new: Sequence[Any], at: Pointer) -> list[Places]:
    """Every item of both, once: first what is equal belongs together, then what says the same in required keys."""
    if len(old) * len(new) > MOST:
        both = range(max(len(old), len(new)))
        return [(at if at < len(old) else NOWHERE, at if at < len(new) else NOWHERE) for at in both]
    fixed = _equal(old, new) if unordered(at) else {}
    rest = [number for number in range(len(old)) if number not in fixed]
    others = [number for number in range(len(new)) if number not in fixed.values()]
    found = _best([old[number] for number in rest], [new[number] for number in others], at)
    rest, others = [*rest, NOWHERE], [*others, NOWHERE]  # which is the last
    return [*fixed.items(), *((rest[one], others[two]) for one, two in found)]


def _equal(old: Sequence[Any], new: Sequence[Any]) -> dict[int, int]:
    """Equal items wherever they stand, each once."""
    found: dict[int, int] = {}
    for number, item in enumerate(old):
        free = (other for other, each in enumerate(new) if each == item and other not in found.values())
        other = next(free, None)
        if other is not None:
            found[number] = other
    return found


def _best(old: Sequence[Any], new: Sequence[Any], at: Pointer) -> list[Places]:
    """The pairs of the best score whose order is that of both lists (Needleman and Wunsch, 1970, without penalties)."""
    nothing: Score = (0, 0, 0, 0.0)
    scores = [[nothing] * (len(new) + 1) for _ in range(len(old) + 1)]  # of what is left from (one, two) on
    required = [_required(at, two) for two in new]
    alike = [[_alike(one, two, keys) for two, keys in zip(new, required, strict=True)] for one in old]
    for one in reversed(range(len(old))):
        for two in reversed(range(len(new))):
            paired = _sum(alike[one][two], scores[one + 1][two + 1])
            scores[one][two] = max(paired, scores[one + 1][two], scores[one][two + 1])
    found: list[Places] = []
    one = two = 0
    while one < len(old) and two < len(new):
        if scores[one][two] == _sum(alike[one][two], scores[one + 1][two + 1]):
            found.append((one, two))
            one, two = one + 1, two + 1
        elif scores[one][two] == scores[one + 1][two]:
            found.append((one, NOWHERE))
            one += 1
        else:
            found.append((NOWHERE, two))
            two += 1
    left, more = range(one, len(old)), range(two, len(new))
    return [*found, *((number, NOWHERE) for number in left), *((NOWHERE, number) for number in more)]


def _alike(old: Any, new: Any, required: set[str]) -> Score:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return int(old == new), 0, 1, 0.0
    names = {*old, *new}
    equal = {name for name in names if name in old and name in new and old[name] == new[name]}
    return int(len(equal) == len(names)), len(equal & required), 1, len(equal) / len(names)


def _required(at: Pointer, item: Any) -> set[str]:
    """The keys that make an item what it is: those that it cannot do without."""
    found = (schema.branch(node, item) for node in schema.find((*at, 0)))
    return {name for one in found if one is not None for name in one.get("required", ())}


def _sum(one: Score, two: Score) -> Score:
    return one[0] + two[0], one[1] + two[1], one[2] + two[2], one[3] + two[3]


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)
