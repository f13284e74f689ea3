"""Finds what a key of the recipe means in the schema, in every branch that has it, under any of its names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .errors import UsageError
from .schema import Node, branches, discriminator, load
from .wording import closest

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A key in one branch of its section: `branch` is ("name", "adamw") where a constant tells `of` branches apart."""

    parts: Parts
    node: Node
    branch: tuple[str, str] | None
    of: int


def places() -> dict[Parts, list[Place]]:
    """Every key of the language; items of a list are passed through, so `datasets.path` is the path of each."""
    every: dict[Parts, list[Place]] = {}
    for place in _walk(load(), (), None, 1):
        every.setdefault(place.parts, []).append(place)
    return every


def find(key: str, every: Mapping[Parts, Sequence[Place]]) -> list[Parts]:
    """The keys that are meant: the one of this name, else those that end in it, else those called so elsewhere.

    `datasets.0.path`, `datasets[0].path` and `datasets.[].path` are all `datasets.path`. Raises UsageError.
    """
    wanted = tuple(part for part in re.split(r"[.\[\]]+", key) if part and not part.isdigit())
    if wanted in every:
        return [wanted]
    ending = [parts for parts in every if wanted and parts[-len(wanted) :] == wanted]
    found = ending or [parts for parts in every if ".".join(wanted) in dict(other_names(every[parts]))]
    if not found:
        raise _unknown(wanted, every)
    return found


def other_names(found: Sequence[Place]) -> list[tuple[str, str]]:
    """What other trainers call a key, and whose name it is: `habit` for those of no particular one."""
    tables = (place.node.get("x-known-as", {}) for place in found)
    return list(dict.fromkeys((name, tool) for table in tables for tool, names in table.items() for name in names))


def _walk(node: Node, parts: Parts, branch: tuple[str, str] | None, of: int) -> Iterator[Place]:
    key = discriminator(node)
    for one in branches(node):
        if key is not None and "properties" in one:
            branch, of = (key, one["properties"][key]["const"]), len(branches(node))
        for name, below in one.get("properties", {}).items():
            yield Place((*parts, name), below, branch, of)
            yield from _walk(below, (*parts, name), branch, of)
        if "items" in one:
            yield from _walk(one["items"], parts, branch, of)


def _unknown(wanted: Parts, every: Mapping[Parts, Sequence[Place]]) -> UsageError:
    names = {".".join(parts) for parts in every}
    near = closest(".".join(wanted), names)
    last = None if near or not wanted else closest(wanted[-1], {parts[-1] for parts in every})
    meant = [near] if near else sorted(name for name in names if last and name.split(".")[-1] == last)
    hint = f"did you mean {' or '.join(meant)}?" if meant else "sysml-run explain lists every section"
    return UsageError(f"no key is called {'.'.join(wanted)!r}", hint)
