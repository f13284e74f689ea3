"""What each dataset type is: where its rows are in a document, which fields templates see, and its own templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Dataset, DatasetMap

from .sysscan import findings, observation

Message = dict[str, Any]

FINDING = DatasetMap(
    system="You are a local security analyst.",
    prompt="Assess this finding. Answer with JSON: severity and risk_score.\n{{ finding | tojson }}",
    completion="{{ {'severity': severity, 'risk_score': risk_score | whole} | tojson }}",
)
PROMPT_COMPLETION = DatasetMap(system=None, prompt="{{ prompt }}", completion="{{ completion }}")
OWN = DatasetMap(system=None, prompt=None, completion=None)
ROLES = frozenset({"system", "user", "assistant", "tool"})


@dataclass(frozen=True)
class RowType:
    """`rows` finds rows in a JSON value; `turns` reads a row that already is a conversation (None: use the map)."""

    map: DatasetMap
    rows: Callable[[Any, str], Iterator[Any]]
    extra: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: {}
    turns: Callable[[dict[str, Any]], list[Message] | None] = lambda row: None


class BadMessagesError(Exception):
    """A conversation that is not a list of known roles with text."""


def plain_rows(*needed: str) -> Callable[[Any, str], Iterator[Any]]:
    """Rows are the items of a list, or the document itself where it has one of the `needed` fields."""

    def rows(value: Any, name: str) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and (not needed or any(field in value for field in needed)):
            yield value

    return rows


def messages(row: dict[str, Any]) -> list[Message]:
    return conversation(row.get("messages"))


def prompt_and_completion(row: dict[str, Any]) -> list[Message] | None:
    """Lists of messages joined; None where both are text, which the map then prints."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return None
    return conversation(as_turns(prompt, "user") + as_turns(completion, "assistant"))


def as_turns(value: Any, role: str) -> list[Any]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def conversation(value: Any) -> list[Message]:
    """The messages with their text in one piece; BadMessagesError where that is not what they are."""
    if not isinstance(value, list) or not value:
        raise BadMessagesError
    return [message(item) for item in value]


def message(item: Any) -> Message:
    if not isinstance(item, dict) or item.get("role") not in ROLES:
        raise BadMessagesError
    content = item.get("content")
    if isinstance(content, list):
        content = "".join(text_part(part) for part in content)
    if content is None and item.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise BadMessagesError
    return {**item, "content": content}


def text_part(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise BadMessagesError
    return str(part["text"])


ROW_TYPES = {
    "sysscan.finding": RowType(FINDING, findings, lambda row: {"finding": observation(row)}),
    "prompt_completion": RowType(PROMPT_COMPLETION, plain_rows("prompt", "completion"), turns=prompt_and_completion),
    "messages": RowType(OWN, plain_rows("messages"), turns=messages),
    "rows": RowType(OWN, plain_rows()),
}


def row_type(dataset: Dataset) -> RowType:
    """DataError for a type of the recipe language that has no reader."""
    if dataset.type not in ROW_TYPES:
        raise DataError(f"datasets.type {dataset.type!r} cannot be read", f"readable: {', '.join(ROW_TYPES)}")
    return ROW_TYPES[dataset.type]


def resolved_map(dataset: Dataset) -> DatasetMap:
    """The recipe's templates, each left out taken from the type's own."""
    own, given = row_type(dataset).map, dataset.map
    return DatasetMap(
        system=own.system if given.system is None else given.system,
        prompt=own.prompt if given.prompt is None else given.prompt,
        completion=own.completion if given.completion is None else given.completion,
    )
