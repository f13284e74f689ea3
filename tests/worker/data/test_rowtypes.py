"""Each dataset type: its case folder of rows and conversations, its sample, and its templates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import resources, schema
from sysml_run.errors import DataError
from sysml_run.worker.data.conversations import Left
from sysml_run.worker.data.rowtypes import ROW_TYPES, preset, resolved_map, row_type

from .reading import dataset, read

CASES = Path(__file__).parents[2] / "cases" / "data"
OWN = "rows"  # has no templates: a sample could not know those of the recipe
NAMED = "contracts"  # rows of a recipe's own whose sample is found by the name of the file


def test_names_are_the_same_everywhere() -> None:
    named = schema.load()["properties"]["datasets"]["items"]["properties"]["type"]["enum"]
    assert named == list(ROW_TYPES)
    assert sorted(named) == sorted(folder.name for folder in CASES.iterdir())
    assert sorted({*named, NAMED} - {OWN}) == sorted(file.stem for file in resources.samples().glob("*.jsonl"))


@pytest.mark.parametrize("kind", ROW_TYPES)
def test_case(kind: str, golden: Callable[[Path, str], None]) -> None:
    folder = CASES / kind
    (rows,) = folder.glob("rows.*")
    keys = folder / "dataset.json"
    found = read(rows, kind, **(json.loads(keys.read_text()) if keys.exists() else {}))
    assert any(not isinstance(each, Left) for _, each in found)
    golden(folder / "expected.jsonl", "".join(line(place, each) for place, each in found))


def line(place: str, found: Any) -> str:
    shown = {"left": found.reason} if isinstance(found, Left) else {"messages": found}
    return json.dumps({"row": place, **shown}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("kind", [kind for kind in ROW_TYPES if kind != OWN])
def test_sample(kind: str) -> None:
    found = read(resources.samples() / f"{kind}.jsonl", kind)
    assert len(found) >= 16
    assert not [each for _, each in found if isinstance(each, Left)]


@pytest.mark.parametrize("kind", [kind for kind in ROW_TYPES if preset(kind).completion is not None])
def test_a_preset_is_an_ordinary_mapping(kind: str) -> None:
    """Copied into a recipe, the templates give the same texts."""
    own = preset(kind)
    path = resources.samples() / f"{kind}.jsonl"
    copied = read(path, kind, map={"system": own.system, "prompt": own.prompt, "completion": own.completion})
    assert [texts(each) for _, each in copied] == [texts(each) for _, each in read(path, kind)]


def texts(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


def test_left_out_keys_take_the_types_own() -> None:
    found = resolved_map(dataset("x", "sysscan.finding", map={"system": "S"}))
    assert (found.system, found.prompt) == ("S", preset("sysscan.finding").prompt)


def test_an_unknown_type() -> None:
    with pytest.raises(DataError, match="'odd' cannot be read") as caught:
        row_type(dataset("x", "odd"))
    assert "sysscan.report" in str(caught.value.hint)
