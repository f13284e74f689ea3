"""One row of a dataset as a conversation, or the reason why it is left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Dataset

from .mapping import NullFieldError, Template
from .redact import Redactor
from .rowtypes import Message, resolved_map, row_type
from .turns import BadMessagesError, has_answer


@dataclass(frozen=True)
class Left:
    """Why a row is left out; the word is a key of the report."""

    reason: str


class Conversations:
    """The templates of one dataset, compiled once.

    Of a row `redacted` comes first, then `keeps` and `route`, then `read`. `refs` counts what the rows read so far
    refer to: `found`, and `missing` from the batch they stand in.
    """

    def __init__(self, dataset: Dataset, number: int) -> None:
        self.type, pointer = row_type(dataset), f"datasets.{number}"
        self.redactor = Redactor(dataset.redact, number)
        self.where, self.when = (
            None if text is None else Template(text, f"{pointer}.{name}", expression=True)
            for name, text in (("where", dataset.where), ("route.when", dataset.route.when if dataset.route else None))
        )
        texts = resolved_map(dataset)
        self.overridden = dataset.map.prompt is not None or dataset.map.completion is not None
        wants = None if self.overridden else f"type {dataset.type} wants {self.type.wants}"
        self.system, self.prompt, self.completion = (
            None if text is None else Template(text, f"{pointer}.map.{name}", wants=wants)
            for name, text in (("system", texts.system), ("prompt", texts.prompt), ("completion", texts.completion))
        )
        self.refs: Counter[str] = Counter()
        if dataset.type == "rows" and (self.prompt is None or self.completion is None):
            raise DataError(f"{pointer}.map: type rows needs prompt and completion", "write both templates")

    def redacted(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row as everything after this may see it; the row itself where there is nothing to redact."""
        return self.redactor(row) if self.redactor.pairs else row

    def fields(self, row: dict[str, Any]) -> dict[str, Any]:
        """What templates see: `row`, the row's fields, and what the type adds."""
        return {"row": row, **row, **self.type.extra(row)}

    def keeps(self, row: dict[str, Any], place: str) -> bool:
        """Whether `where` holds for the row at `place`."""
        return self.where is None or bool(self.where(self.fields(row), place))

    def route(self, row: dict[str, Any], place: str) -> bool | None:
        """Whether the row at `place` matches `route.when`; None where nothing is routed."""
        return None if self.when is None else bool(self.when(self.fields(row), place))

    def read(self, row: dict[str, Any], place: str) -> list[Message] | Left:
        """The row's messages, ending in an answer; its tools, where it has any, are a message `tools` in front."""
        try:
            turns = None if self.overridden else self.type.turns(row)
            fields = self.fields(row)
            found = self.mapped(fields, place) if turns is None else self.with_system(turns, fields, place)
        except NullFieldError:
            return Left("null_field")
        except BadMessagesError as error:
            return Left(error.reason)
        if "missing_refs" in row:
            self.refs.update(found=len(row["findings"]), missing=row["missing_refs"])
        return checked(found, whole=self.prompt is None and self.type.whole)

    def mapped(self, fields: dict[str, Any], place: str) -> list[Message]:
        """System, user and assistant turns from the three templates; of a type that is whole the answer alone."""
        if self.completion is None or (self.prompt is None and not self.type.whole):
            raise DataError("datasets.map needs both prompt and completion for this type", "write both templates")
        system = self.system_turn(fields, place)
        asked = [] if self.prompt is None else [turn("user", self.prompt(fields, place)) | self.parts(fields["row"])]
        answer = turn("assistant", self.completion(fields, place))
        return [*system, *self.type.before(fields["row"]), *asked, answer]

    def parts(self, row: dict[str, Any]) -> dict[str, str]:
        """The fields that the type's own prompt is made of, where each of them has text."""
        found = {name: row.get(name) for name in self.type.parts if not self.overridden}
        texts = {name: text for name, text in found.items() if isinstance(text, str) and text.strip()}
        return texts if len(texts) == len(found) else {}

    def with_system(self, turns: list[Message], fields: dict[str, Any], place: str) -> list[Message]:
        """The recipe's system message in front, where the conversation has none."""
        tools = [message for message in turns[:1] if message["role"] == "tools"]
        said = turns[len(tools) :]
        return turns if said[0]["role"] == "system" else [*tools, *self.system_turn(fields, place), *said]

    def system_turn(self, fields: dict[str, Any], place: str) -> list[Message]:
        """The system message; none where its template is absent or comes out empty."""
        text = "" if self.system is None else self.system(fields, place)
        return [turn("system", text)] if text.strip() else []


def turn(role: str, content: Any) -> Message:
    return {"role": role, "content": content}


def checked(messages: list[Message], *, whole: bool = False) -> list[Message] | Left:
    """The messages up to the last answer to train on, if it says something and (unless `whole`) answers something."""
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and trained(message)]
    if not answers:
        return Left("no_answer")
    last = answers[-1]
    if not has_answer(messages[last]):
        return Left("empty_answer")
    asked = (message for message in messages[:last] if message["role"] not in ("system", "tools"))
    if not whole and not any(has_answer(message) for message in asked):
        return Left("empty_prompt")
    return messages[: last + 1]


def trained(message: Message) -> bool:
    """False where the data itself says that this answer is not to be learned."""
    return bool(message.get("train", True))
