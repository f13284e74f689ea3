"""One row of a dataset as a conversation, or the reason why it is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Dataset

from .mapping import NullFieldError, Template
from .rowtypes import BadMessagesError, Message, resolved_map, row_type


@dataclass(frozen=True)
class Left:
    """Why a row is left out; the word is a key of the report."""

    reason: str


class Conversations:
    """The templates of one dataset, compiled once."""

    def __init__(self, dataset: Dataset, number: int) -> None:
        self.type, self.where = row_type(dataset), None
        if dataset.where is not None:
            self.where = Template(dataset.where, f"datasets.{number}.where", expression=True)
        texts = resolved_map(dataset)
        self.overridden = dataset.map.prompt is not None or dataset.map.completion is not None
        self.system, self.prompt, self.completion = (
            None if text is None else Template(text, f"datasets.{number}.map.{name}")
            for name, text in (("system", texts.system), ("prompt", texts.prompt), ("completion", texts.completion))
        )
        if dataset.type == "rows" and (self.prompt is None or self.completion is None):
            raise DataError(f"datasets.{number}.map: type rows needs prompt and completion", "write both templates")

    def fields(self, row: dict[str, Any]) -> dict[str, Any]:
        """What templates see: `row`, the row's fields, and what the type adds."""
        return {"row": row, **row, **self.type.extra(row)}

    def keeps(self, row: dict[str, Any], place: str) -> bool:
        """Whether `where` holds for the row at `place`."""
        return self.where is None or bool(self.where(self.fields(row), place))

    def read(self, row: dict[str, Any], place: str) -> list[Message] | Left:
        """The row's messages, ending in an answer."""
        try:
            turns = None if self.overridden else self.type.turns(row)
            fields = self.fields(row)
            found = self.mapped(fields, place) if turns is None else self.with_system(turns, fields, place)
        except NullFieldError:
            return Left("null_field")
        except BadMessagesError:
            return Left("bad_messages")
        return checked(found)

    def mapped(self, fields: dict[str, Any], place: str) -> list[Message]:
        """System, user and assistant turns from the three templates."""
        if self.prompt is None or self.completion is None:
            raise DataError("datasets.map needs both prompt and completion for this type", "write both templates")
        system = self.system_turn(fields, place)
        asked, answer = self.prompt(fields, place), self.completion(fields, place)
        return [*system, turn("user", asked), turn("assistant", answer)]

    def with_system(self, turns: list[Message], fields: dict[str, Any], place: str) -> list[Message]:
        """The recipe's system message in front, where the conversation has none."""
        return turns if turns[0]["role"] == "system" else [*self.system_turn(fields, place), *turns]

    def system_turn(self, fields: dict[str, Any], place: str) -> list[Message]:
        """The system message; none where its template is absent or comes out empty."""
        text = "" if self.system is None else self.system(fields, place)
        return [turn("system", text)] if text.strip() else []


def turn(role: str, content: Any) -> Message:
    return {"role": role, "content": content}


def checked(messages: list[Message]) -> list[Message] | Left:
    """The messages up to the last answer, if there is one with text and something before it."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        return Left("no_answer")
    if not messages[last]["content"].strip() and not messages[last].get("tool_calls"):
        return Left("empty_answer")
    if not any(message["content"].strip() for message in messages[:last] if message["role"] != "system"):
        return Left("empty_prompt")
    return messages[: last + 1]
