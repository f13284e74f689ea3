"""Reads a dataset as the first pass does, without splitting, counting or tokenizing: for the tests beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sysml_run.recipe import Dataset, DatasetMap, Redaction, Route
from sysml_run.worker.data.archive import members
from sysml_run.worker.data.conversations import Conversations, Left
from sysml_run.worker.data.documents import documents
from sysml_run.worker.data.rowtypes import row_type

Found = tuple[str, Any]


def dataset(path: Path | str, kind: str, **keys: Any) -> Dataset:
    """A dataset of the recipe with the schema's defaults."""
    texts = {"system": None, "prompt": None, "completion": None} | keys.pop("map", {})
    given = {
        "where": None,
        "max_rows": None,
        "weight": 1.0,
        "use_as": "auto",
        "config": None,
        "split": "train",
        "revision": None,
        **keys,
        "route": Route(**({"take": "match"} | keys["route"])) if "route" in keys else None,
        "redact": tuple(Redaction(**({"replace": "<redacted>"} | each)) for each in keys.get("redact", ())),
    }
    return Dataset(path=str(path), type=kind, map=DatasetMap(**texts), **given)  # type: ignore[arg-type]


def rows(path: Path, kind: str) -> Iterator[Found]:
    """Rows with their place; a line that holds none as None."""
    for member in members(path, path.name):
        number = 0
        for document in documents(member.stream, member.label):
            found = [] if document.error else list(row_type(dataset(path, kind)).rows(document.value, member.label))
            for row in found if found or document.line is None else [None]:
                yield f"{member.label}:{number}", row
                number += 1


def read(path: Path, kind: str, **keys: Any) -> list[Found]:
    """Place and messages, or `Left`, of every row; rows that `where` or `route` leave out are left out."""
    conversations = Conversations(dataset(path, kind, **keys), 0)
    return [(place, one(conversations, row, place)) for place, row in rows(path, kind)]


def one(conversations: Conversations, row: Any, place: str) -> Any:
    if not isinstance(row, dict):
        return Left("not_a_row")
    row = conversations.redacted(row)
    return conversations.read(row, place) if conversations.keeps(row, place) else Left("where")
