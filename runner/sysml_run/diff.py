"""Two resolved recipes -> the keys that differ, with where each value comes from, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import diffalign
from .consequences import facts
from .machine import Machine
from .plan import Settled, settle
from .position import Pointer, dotted
from .resolve import Resolved


class Absent:
    """The value of a key that one of the two recipes does not have."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = Absent()


@dataclass(frozen=True)
class Pair:
    """A leaf of either tree: `here` is its place in the first, `there` in the second."""

    here: Pointer
    there: Pointer
    before: Any
    after: Any
    section: Pointer | None


@dataclass(frozen=True)
class Change:
    """One key: both values (ABSENT where a side has no such key) and where each comes from.

    `pointer` is its place in the second recipe, `before_pointer` in the first: they differ by the place of an item in
    its list. `section` is what one side lacks the whole of, or lacks this key in; None where both sides have the key.
    """

    pointer: Pointer
    before_pointer: Pointer
    section: Pointer | None
    before: Any
    after: Any
    before_source: str | None
    after_source: str | None


@dataclass(frozen=True)
class Consequence:
    """One number that follows from a recipe, by its name in `consequences`; None is unknown."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Side:
    """One of the two: its name and that with changes, the recipe as it is written, and with what the plan derives."""

    name: str
    title: str
    resolved: Resolved
    settled: Settled


@dataclass(frozen=True)
class Diff:
    """`facts` are all consequences of each side, equal ones too."""

    before: Side
    after: Side
    changed: tuple[Change, ...]
    derived: tuple[Consequence, ...]
    facts: tuple[Mapping[str, Any], Mapping[str, Any]]


def side(name: str, title: str, resolved: Resolved, machine: Machine) -> Side:
    """Settle a recipe on this machine."""
    return Side(name, title, resolved, settle(resolved, machine))


def compare(before: Side, after: Side) -> Diff:
    """By meaning: comments, the order of keys, spelled-out defaults and spellings of a path are no difference."""
    found = facts(before.settled.recipe), facts(after.settled.recipe)
    names = dict.fromkeys([*found[0], *found[1]])
    derived = (Consequence(name, found[0].get(name), found[1].get(name)) for name in names)
    return Diff(
        before,
        after,
        tuple(_changes(before, after)),
        tuple(item for item in derived if item.before != item.after),
        found,
    )


def _changes(before: Side, after: Side) -> Iterator[Change]:
    """What the plan makes of a key where that differs, else what is written (such as `auto` and what it came to)."""
    as_written = _pairs(before.resolved.values, after.resolved.values, (), (), None)
    written = {(one.here, one.there): one for one in as_written}
    for pair in _pairs(before.settled.values, after.settled.values, (), (), None):
        sides: tuple[Resolved | Settled, Resolved | Settled] = (before.settled, after.settled)
        at = (pair.here, pair.there)
        old, new = pair.before, pair.after
        if old == new and at in written:
            old, new, sides = written[at].before, written[at].after, (before.resolved, after.resolved)
        if old != new:
            ends = zip((old, new), at, sides, strict=True)
            sources = (_source(value, place, one.sources) for value, place, one in ends)
            yield Change(pair.there, pair.here, pair.section, old, new, *sources)


def _pairs(old: Any, new: Any, here: Pointer, there: Pointer, section: Pointer | None) -> Iterator[Pair]:
    """Every leaf of either tree with both its values; a section that one side lacks gives a pair for each key."""
    kind = _sections(old, new)
    if kind is dict:
        yield from _keys(old or {}, new or {}, here, there, section)
    elif kind is list:
        yield from _items(old or [], new or [], here, there, section)
    else:
        lists = isinstance(old, list) and isinstance(new, list)
        yield Pair(here, there, old, old if lists and diffalign.same(old, new, there) else new, section)


def _keys(old: Any, new: Any, here: Pointer, there: Pointer, section: Pointer | None) -> Iterator[Pair]:
    one_sided = not (old and new)
    for name in dict.fromkeys([*old, *new]):
        lacking = one_sided or not (name in old and name in new)
        below = section if section is not None else there if lacking else None
        yield from _pairs(old.get(name, ABSENT), new.get(name, ABSENT), (*here, name), (*there, name), below)


def _items(old: Any, new: Any, here: Pointer, there: Pointer, section: Pointer | None) -> Iterator[Pair]:
    """An item that one side lacks has the place that it has in the other."""
    for first, second in diffalign.places(old, new, there):
        if first == diffalign.NOWHERE:
            yield from _pairs(ABSENT, new[second], (*here, second), (*there, second), section)
        elif second == diffalign.NOWHERE:
            yield from _pairs(old[first], ABSENT, (*here, first), (*there, first), section)
        else:
            yield from _pairs(old[first], new[second], (*here, first), (*there, second), section)


def _sections(old: Any, new: Any) -> type | None:
    """`dict`, or `list` for lists of objects, where both are such or one is and the other is nothing."""
    held = [value for value in (old, new) if value not in (None, ABSENT, [], {})]
    if held and all(isinstance(value, dict) for value in held):
        return dict
    objects = any(isinstance(item, dict) for value in held if isinstance(value, list) for item in value)
    return list if objects and all(isinstance(value, list) for value in held) else None


def _source(value: Any, at: Pointer, sources: Mapping[str, str]) -> str | None:
    """Of the key, of the first item of its list, or of the section that is `null`; None for a key that cannot be."""
    name = dotted(at)
    if value is not ABSENT:
        inside = (label for key, label in sources.items() if key.startswith(f"{name}."))
        return sources.get(name) or next(inside, None)
    above = (sources.get(dotted(at[:depth])) for depth in range(len(at) - 1, 0, -1))
    return next(filter(None, above), None)
