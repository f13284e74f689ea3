"""What each dataset type is: where its rows are in a document, which fields templates see, and its own templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Dataset, DatasetMap

from . import presets, sysscan, turns
from .turns import Message as Message


@dataclass(frozen=True)
class RowType:
    """One type. `wants` says what a row is, for messages; `rows` finds rows in a JSON value.

    `extra` adds fields for templates. `turns` reads a row that already is a conversation (None: use the map), `before`
    gives the turns ahead of the mapped ones, and `parts` names fields that the user turn keeps apart for a template
    that sets them apart (Alpaca's). A type that is `whole` has rows that are all answer.
    """

    wants: str
    map: DatasetMap
    rows: Callable[[Any, str], Iterator[Any]]
    extra: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: {}
    turns: Callable[[dict[str, Any]], list[Message] | None] = lambda row: None
    before: Callable[[dict[str, Any]], list[Message]] = lambda row: []
    parts: tuple[str, ...] = ()
    whole: bool = False


def plain_rows(*known: str) -> Callable[[Any, str], Iterator[Any]]:
    """Rows are the items of a list, or the document itself where it has one of the `known` fields."""

    def rows(value: Any, name: str) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and (not known or any(field in value for field in known)):
            yield value

    return rows


ROW_TYPES = {
    "sysscan.finding": RowType(
        "a finding (title, description, severity, risk_score), or a batch of findings",
        presets.FINDING,
        sysscan.findings,
        extra=lambda row: {"finding": sysscan.observation(row)},
    ),
    "sysscan.correlation": RowType(
        "a batch with correlations (each with correlation_refs) and the findings they refer to",
        presets.CORRELATION,
        sysscan.correlations,
        extra=sysscan.correlated,
    ),
    "sysscan.report": RowType(
        "a scanner's report (meta, and results with a list of findings each)",
        presets.REPORT,
        sysscan.report,
        extra=sysscan.reported,
    ),
    "sysscan.document": RowType(
        "an object with one or more of title, description, content, findings",
        presets.DOCUMENT,
        plain_rows("title", "description", "content", "findings"),
        whole=True,
    ),
    "alpaca": RowType(
        "an object with instruction and output (and perhaps input, system, history)",
        presets.ALPACA,
        plain_rows("instruction", "output"),
        before=turns.history,
        parts=("instruction", "input"),
    ),
    "sharegpt": RowType(
        "an object with conversations, a list of {from, value} (and perhaps system, tools)",
        presets.OWN,
        plain_rows("conversations"),
        turns=turns.sharegpt,
    ),
    "messages": RowType(
        "an object with messages, a list of {role, content} (and perhaps tools)",
        presets.OWN,
        plain_rows("messages"),
        turns=turns.messages,
    ),
    "prompt_completion": RowType(
        "an object with prompt and completion, each text or a list of messages",
        presets.PROMPT_COMPLETION,
        plain_rows("prompt", "completion"),
        turns=turns.prompt_and_completion,
    ),
    "text": RowType("an object with text", presets.TEXT, plain_rows("text"), whole=True),
    "tools": RowType(
        "an object with tools, and with messages, conversations, or query and answers",
        presets.OWN,
        plain_rows("tools"),
        turns=turns.with_tools,
    ),
    "preference": RowType(
        "an object with chosen and rejected (and perhaps prompt), each text or a list of messages",
        presets.OWN,
        plain_rows("chosen", "rejected"),
        turns=turns.preference,
    ),
    "rows": RowType("an object", presets.OWN, plain_rows()),
}


def row_type(dataset: Dataset) -> RowType:
    """DataError for a type of the recipe language that has no reader."""
    if dataset.type not in ROW_TYPES:
        raise DataError(f"datasets.type {dataset.type!r} cannot be read", f"readable: {', '.join(ROW_TYPES)}")
    return ROW_TYPES[dataset.type]


def preset(name: str) -> DatasetMap:
    """The templates that the type called `name` brings; None where it has none. KeyError for no type."""
    return ROW_TYPES[name].map


def resolved_map(dataset: Dataset) -> DatasetMap:
    """The recipe's templates, each left out taken from the type's own."""
    own, given = row_type(dataset).map, dataset.map
    return DatasetMap(
        system=own.system if given.system is None else given.system,
        prompt=own.prompt if given.prompt is None else given.prompt,
        completion=own.completion if given.completion is None else given.completion,
    )
