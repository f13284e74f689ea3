"""What divides and counts rows: the texts they are compared by, their group, and the values of named fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

from sysml_run.recipe import Split

from .mapping import Template, pick
from .masking import digest, mask
from .rowtypes import Message

PATH = re.compile(r"[\w-]+(\.[\w-]+)*")
COUNTED = ("severity", "category")  # their values are counted in the report, where rows have them


class Key:
    """A dotted path to a field, or an expression over the fields; `pointer` names it in messages."""

    def __init__(self, text: str, pointer: str) -> None:
        self.text, self.pointer = text, pointer
        self.expression = None if PATH.fullmatch(text) else Template(text, pointer, expression=True)

    def __call__(self, row: Mapping[str, Any], fields: Callable[[], Mapping[str, Any]], place: str) -> str:
        """Its value for the row as text; DataError lists the fields where one is missing."""
        if self.expression is None:
            return as_text(pick(row, self.text, self.pointer, place))
        return as_text(self.expression(fields(), place))


@dataclass(frozen=True)
class Text:
    """A conversation as JSON: what stands before its last message (nothing where there is but one), and the rest."""

    asked: str
    answer: str

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Text:
        line = json.dumps(messages, ensure_ascii=False)
        if len(messages) == 1:
            return cls("", line)
        at = len(line) - len(json.dumps(messages[-1], ensure_ascii=False)) - 1
        return cls(line[:at], line[at:])


class Keys:
    """What the recipe's split asks of a row."""

    def __init__(self, split: Split) -> None:
        self.group = None if split.group_by in (None, "masked_text") else Key(str(split.group_by), "split.group_by")
        self.masked = split.group_by == "masked_text"
        by = split.balance.by if split.balance else None
        asked = ((split.stratify_by, "split.stratify_by"), (by, "split.balance.by"))
        self.asked = {name: Key(name, pointer) for name, pointer in asked if name is not None}
        self.fields = tuple(dict.fromkeys([*self.asked, *COUNTED]))

    def digests(self, text: Text, row: Any, fields: Callable[[], Any], place: str) -> dict[str, bytes]:
        """16 bytes each for the conversation's text, its masked text and the group of rows that stay together.

        The masked text that groups rows is that of the question: one that is answered in two ways stays on one side.
        """
        asked = mask(text.asked)
        masked = asked + mask(text.answer)
        exact, group = digest(text.asked + text.answer), digest(asked or masked)
        found = {"exact": exact, "masked": digest(masked), "group": group if self.masked else exact}
        return found if self.group is None else found | {"group": digest(self.group(row, fields, place))}

    def values(self, row: Mapping[str, Any], fields: Callable[[], Any], place: str) -> list[str | None]:
        """The value of each of `fields`; one that the recipe asks for must be there."""
        found = (self.asked[name](row, fields, place) if name in self.asked else row.get(name) for name in self.fields)
        return [None if value is None else intern(as_text(value)) for value in found]


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
