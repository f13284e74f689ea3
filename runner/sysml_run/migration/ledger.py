"""What became of each value of the source: carried into the recipe, or listed with the reason why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sysml_run.document import Document
from sysml_run.position import Pointer, dotted, pointer
from sysml_run.wording import flow

from .values import fitted

ITEM = re.compile(r"^\w+\.\d+\.(?=\D)")  # a comment stands in the item it is about
EMPTY: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True)
class Entry:
    """A value of the recipe; `origin` is the comment behind it."""

    value: Any
    origin: str


class Ledger:
    """Every leaf of `document` ends in `carried` or in `listed`; `entries` become the recipe, `look` the advice."""

    def __init__(self, document: Document, tool: str) -> None:
        self.document, self.tool = document, tool
        self.leaves: dict[Pointer, Any] = dict(leaves(document.value))
        self.carried: dict[Pointer, Pointer] = {}
        self.listed: dict[Pointer, str] = {}
        self.entries: dict[Pointer, Entry] = {}
        self.sections: dict[Pointer, str] = {}
        self.look: list[str] = []

    def get(self, name: str) -> Any:
        """The value of the source at a dotted name; None where there is none or an empty one."""
        value = self.document.value
        for part in pointer(name):
            inside = isinstance(value, dict) and part in value
            inside |= isinstance(value, list) and isinstance(part, int) and part < len(value)
            value = value[part] if inside else None
        return None if _empty(value) else value

    def word(self, name: str) -> str:
        """The value of the source where it is text, else empty text."""
        value = self.get(name)
        return value if isinstance(value, str) else ""

    def has(self, name: str) -> bool:
        """Whether the source writes the key, be it empty."""
        return any(leaf[: len(at)] == at for at in (pointer(name),) for leaf in self.leaves)

    def carry(self, target: str, value: Any, *names: str, note: str = "") -> None:
        """Write `value` at `target`; the named parts of the source are carried by it."""
        value = fitted(pointer(target), value)
        words = ", ".join(self._origin(name, value) for name in names if self.has(name))
        origin = f"{self.tool}: {words}" if words else f"{self.tool}'s default"
        self.entries[pointer(target)] = Entry(value, f"{origin}{'; ' if note else ''}{note}")
        self.settle(target, *names)

    def same(self, target: str, name: str) -> None:
        """Carry the value as it is, if there is one."""
        value = self.get(name)
        if value is not None:
            self.carry(target, value, name)

    def section(self, target: str, name: str) -> None:
        """The named part of the source is carried by there being a section `target`."""
        self.sections[pointer(target)] = f"{self.tool}: {self._origin(name, None)}"
        self.settle(target, name)

    def settle(self, target: str, *names: str) -> None:
        """The named parts of the source are carried by what stands at `target`."""
        for name in names:
            self.carried |= dict.fromkeys(self.open(pointer(name)), pointer(target))

    def make(self, target: str, value: Any, why: str) -> None:
        """Write a value that the source does not name, unless something stands there."""
        self.entries.setdefault(pointer(target), Entry(value, why))

    def leave(self, name: str, why: str) -> None:
        """List what is not settled yet at and below `name`."""
        for leaf in self.open(pointer(name)):
            self.listed[leaf] = why

    def drop(self, target: Pointer, why: str) -> None:
        """Take a value out of the recipe again; what was carried by it is listed."""
        del self.entries[target]
        for leaf in [leaf for leaf, place in self.carried.items() if place == target]:
            del self.carried[leaf]
            self.listed[leaf] = why

    def drop_item(self, target: Pointer, at: int, why: str) -> None:
        """Take one of several items out of a list again."""
        entry = self.entries[target]
        item, rest = entry.value[at], [*entry.value[:at], *entry.value[at + 1 :]]
        self.entries[target] = Entry(rest, f"{entry.origin}; without {flow(item)}")
        for leaf in [leaf for leaf, place in self.carried.items() if place == target and self.leaves[leaf] == item]:
            del self.carried[leaf]
            self.listed[leaf] = why

    def open(self, at: Pointer = ()) -> list[Pointer]:
        """The leaves at and below `at` that are neither carried nor listed."""
        return [leaf for leaf in self.leaves if leaf[: len(at)] == at and not self.settled(leaf)]

    def settled(self, leaf: Pointer) -> bool:
        return leaf in self.carried or leaf in self.listed

    def line(self, leaf: Pointer) -> int:
        return self.document.key(leaf).line or 0

    def _origin(self, name: str, value: Any) -> str:
        """The name, and the source's value where the recipe's is another one and it can be shown."""
        written = self.get(name)
        told = written is not None and written != value and not isinstance(written, dict) and "\n" not in str(written)
        short = ITEM.sub("", name)
        return f"{short} {flow(written)}" if told else short


def leaves(value: Any, at: Pointer = ()) -> Iterator[tuple[Pointer, Any]]:
    """Scalars, and lists and sections that hold nothing, each with its place."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for part, below in items:
            yield from leaves(below, (*at, part))
    else:
        yield at, value


def bare(leaf: Pointer) -> str:
    """The dotted name without the numbers of items: datasets.0.path -> datasets.path."""
    return dotted(tuple(part for part in leaf if isinstance(part, str)))


def _empty(value: Any) -> bool:
    return any(value == nothing and type(value) is type(nothing) for nothing in EMPTY)
