"""What becomes of one row by itself, so that rows can be mapped in any process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from sysml_run.recipe import Recipe

from . import workers
from .archive import printable
from .conversations import Conversations, Left
from .keys import Keys, Text

BATCH = 256  # rows that go to another process at once
SHOWN = 12  # fields of a row that a message names


@dataclass(frozen=True, slots=True)
class Kept:
    """A row's line for the spool, and what the columns hold of it."""

    line: bytes
    digests: dict[str, bytes]
    values: list[str | None]


@dataclass(frozen=True, slots=True)
class Gone:
    """A row that is left out: why, and what was `found` where its shape is at fault."""

    reason: str
    found: str = ""


Placed: TypeAlias = tuple[str, Any]  # a row's place, and the row or what became of it
Tally: TypeAlias = tuple[Counter[str], Counter[int], Counter[str]]


class Mapper:
    """Maps the rows of dataset `number`; `counts` has those that `where` kept and those that `route.when` matched."""

    def __init__(self, recipe: Recipe, number: int) -> None:
        self.dataset = recipe.datasets[number]
        self.conversations, self.keys = Conversations(self.dataset, number), Keys(recipe.split)
        self.counts: Counter[str] = Counter()

    def __call__(self, row: dict[str, Any], place: str) -> Kept | Gone:
        chosen = self.chosen(row, place)
        return chosen if isinstance(chosen, Gone) else self.made(chosen, place)

    def chosen(self, row: dict[str, Any], place: str) -> dict[str, Any] | Gone:
        """The redacted row, if it goes the way that the dataset takes."""
        row = self.conversations.redacted(row)
        if not self.conversations.keeps(row, place):
            return Gone("where")
        self.counts["where"] += 1
        if self.dataset.route is None:
            return row
        match = bool(self.conversations.route(row, place))
        self.counts["match"] += match
        return row if match == (self.dataset.route.take == "match") else Gone("route")

    def made(self, row: dict[str, Any], place: str) -> Kept | Gone:
        """The row's conversation with what divides and counts it."""
        messages = self.conversations.read(row, place)
        if isinstance(messages, Left):
            return Gone(messages.reason, shape(row))
        text = Text.of(messages)
        try:
            digests = self.keys.digests(text, row, lambda: self.conversations.fields(row), place)
        except UnicodeEncodeError:
            return Gone("not_unicode", shape(row))
        values = self.keys.values(row, lambda: self.conversations.fields(row), place)
        return Kept(f"[{json.dumps(place)}, {text.asked}{text.answer}]".encode(), digests, values)

    def tally(self) -> Tally:
        """What was counted since it was last asked for."""
        redacted, refs = self.conversations.redactor.counts, self.conversations.refs
        found = self.counts.copy(), redacted.copy(), refs.copy()
        for counter in (self.counts, redacted, refs):
            counter.clear()
        return found

    def add(self, tally: Tally) -> None:
        """Count what another process did."""
        counts, redacted, refs = tally
        self.counts.update(counts)
        self.conversations.redactor.counts.update(redacted)
        self.conversations.refs.update(refs)


def elsewhere(mapper: Mapper, recipe: Recipe, number: int, rows: Iterable[Placed], processes: int) -> Iterator[Placed]:
    """What becomes of each row, in order, mapped in other processes; what they count is added to `mapper`."""
    given, rows = (recipe, number), iter(rows)
    batches = iter(lambda: list(islice(rows, BATCH)), [])
    for found, tally in workers.in_order(several, batches, processes, prepare=begin, given=given):
        mapper.add(tally)
        yield from found


STATE: dict[str, Mapper] = {}  # of a process


def begin(recipe: Recipe, number: int) -> None:
    STATE["mapper"] = Mapper(recipe, number)


def several(batch: list[Placed]) -> tuple[list[Placed], Tally]:
    mapper = STATE["mapper"]
    return [(place, mapper(row, place)) for place, row in batch], mapper.tally()


def shape(value: Any) -> str:
    """What a value is, for messages: an object by its fields."""
    if isinstance(value, dict):
        names = [printable(name) for name in list(value)[:SHOWN]]
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return f"the fields {', '.join(names)}{more}" if names else "no field"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {str: "text", bool: "true or false", type(None): "nothing"}.get(type(value), "a number")
