"""Rows mapped here and in other processes: the same lines, columns and counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sysml_run import datafiles
from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.worker.data import mapper, workers
from sysml_run.worker.data.columns import Columns
from sysml_run.worker.data.intake import Found, Intake
from sysml_run.worker.data.spool import Spool

Make = Callable[..., Recipe]
MAP = {"prompt": "{{ q }}", "completion": "{{ a }}"}


@pytest.fixture
def recipe(make_recipe: Make, tmp_path: Path) -> Recipe:
    """Two datasets with rows of every fate."""
    rows: list[Any] = [
        {"q": f"Is 10.0.0.{n} up?", "a": f"yes {n % 3}" if n % 7 else "", "kind": "odd" if n % 2 else "even", "n": n}
        for n in range(300)
    ]
    rows[40:40] = [
        7,
        ["x"],
        {"q": None, "a": "b", "kind": "odd", "n": 1},
        {"q": "\ud800", "a": "b", "kind": "odd", "n": 2},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    one = {"path": str(tmp_path / "a.jsonl"), "type": "rows", "map": MAP, "where": "n > 5 or q is none or n < 3"}
    one["route"] = {"when": "kind == 'odd'", "take": "match"}
    one["redact"] = [{"pattern": r"10\.0\.\d+\.\d+", "replace": "HOST"}]
    two = {"path": str(tmp_path / "b.jsonl"), "type": "rows", "map": MAP, "max_rows": 9}
    return make_recipe(datasets=[one, two], split={"validation": 0.2, "stratify_by": "kind", "group_by": "masked_text"})


def read(recipe: Recipe, folder: Path, processes: int) -> tuple[Found, Columns, bytes]:
    folder.mkdir()
    with Spool(folder / "rows") as spool:
        intake = Intake(recipe, spool, processes)
        found = intake.read_all([datafiles.find(dataset) for dataset in recipe.datasets])
    return found, intake.rows.columns(), (folder / "rows").read_bytes()


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows go to other processes however few they are; has the number of each dataset of which they did."""
    went: list[int] = []

    def noted(given: mapper.Mapper, recipe: Recipe, number: int, *more: Any) -> Any:
        went.append(number)
        return mapper.elsewhere(given, recipe, number, *more)

    monkeypatch.setattr(workers, "LARGE", 0)
    monkeypatch.setattr(mapper, "BATCH", 32)
    monkeypatch.setattr("sysml_run.worker.data.intake.elsewhere", noted)
    return went


@pytest.mark.slow
def test_any_number_of_processes_finds_the_same(recipe: Recipe, tmp_path: Path, apart: list[int]) -> None:
    one, columns, lines = read(recipe, tmp_path / "1", 1)
    assert apart == []
    four, others, same = read(recipe, tmp_path / "4", 4)
    assert apart == [0]  # a dataset with max_rows is mapped here
    assert one == four
    assert json.dumps(vars(one)) == json.dumps(vars(four))
    assert lines == same
    for each in fields(Columns):
        assert np.array_equal(getattr(columns, each.name), getattr(others, each.name))
    assert set(one.dropped) >= {"not_a_row", "where", "route", "null_field", "empty_answer", "max_rows", "not_unicode"}
    assert one.redacted[0]["replaced"] > 100
    assert 0 < one.routes[0]["match"] < 300


@pytest.mark.slow
def test_the_first_row_that_cannot_be_mapped_is_named(recipe: Recipe, tmp_path: Path, apart: list[int]) -> None:
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"n": 9, "kind": "odd"}) + "\n")
    said = []
    for processes in (1, 4):
        with pytest.raises(DataError) as caught:
            read(recipe, tmp_path / str(processes), processes)
        said.append((caught.value.message, caught.value.hint))
    assert said[0] == said[1]
    assert "a.jsonl:305" in said[0][0]
    assert apart == [0]


def test_what_a_value_is_called() -> None:
    named = {"a": 1, "b\x1b": 2}
    assert mapper.shape(named) == "the fields a, b\\x1b"
    assert mapper.shape({f"f{n}": n for n in range(20)}).endswith("f11 and 8 more")
    values = ({}, [1, 2], "x", 1.5, True, None)
    assert [mapper.shape(value) for value in values] == [
        *("no field", "a list of 2", "text", "a number", "true or false", "nothing")
    ]
