"""Rows in sequences: nothing is lost or cut, sequences are full, and a set is packed once."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare
from sysml_run.worker.data import packing, store

Make = Callable[..., Recipe]


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_row_is_in_one_sequence_that_holds_it(sizes: list[int]) -> None:
    bins = packing.best_fit(sizes, 64)
    assert sorted(row for rows in bins for row in rows) == list(range(len(sizes)))
    filled = [sum(sizes[row] for row in rows) for rows in bins]
    assert max(filled, default=0) <= 64
    assert len(filled) < 2 or sum(sorted(filled)[:2]) > 64  # no two would have gone into one


def test_the_least_room_is_taken() -> None:
    assert packing.best_fit([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert packing.best_fit([10, 1, 9], 10) == [[0], [2, 1]]


def test_many_rows_fill_their_sequences() -> None:
    draw = random.Random(1)
    sizes = [min(2048, int(draw.lognormvariate(6, 0.6)) + 10) for _ in range(20_000)]
    assert sum(sizes) / (2048 * len(packing.best_fit(sizes, 2048))) > 0.99


def lines(path: Path) -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows = [{"prompt": "What " * draw.randrange(1, 30), "completion": f"It is {i}."} for i in range(120)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"path": str(path), "type": "prompt_completion", "weight": 1.5}]


@pytest.mark.parametrize("window", [packing.WINDOW, 7])
def test_a_packed_set(
    make_recipe: Make, rundir: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, window: int
) -> None:
    monkeypatch.setattr(packing, "WINDOW", window)
    recipe = make_recipe(datasets=lines(tmp_path / "a.jsonl"), prompt={"sequence_len": 128, "packing": True})
    prepare.run(recipe, rundir)
    prepared, facts = store.load(rundir), read_json(rundir.data / "report.json")["packing"]
    train, packed = prepared.split("train"), prepared.split("packed")
    assert (facts["rows"], facts["sequences"], facts["length"]) == (len(train), len(packed), 128)
    assert facts["tokens"] == sum(train["length"]) == sum(packed["length"])
    assert facts["efficiency"] == round(facts["tokens"] / (128 * len(packed)), 4) > (0.9 if window > 100 else 0.6)
    found = Counter(tuple(map(tuple, each)) for sequence in packed for each in documents(sequence))
    assert found == Counter((tuple(row["input_ids"]), (-100, *row["labels"][1:])) for row in train)
    assert [row["loss_tokens"] for row in packed] == [sum(x != -100 for x in row["labels"]) for row in packed]
    assert f"packing: {len(train)} training rows in {len(packed)} sequences of 128 tokens" in capsys.readouterr().out


def documents(sequence: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    ends = [sum(sequence["seq_lengths"][: n + 1]) for n in range(len(sequence["seq_lengths"]))]
    assert ends[-1] == sequence["length"] == len(sequence["input_ids"]) == len(sequence["labels"]) <= 128
    starts = [0, *ends[:-1]]
    return [(sequence["input_ids"][a:b], sequence["labels"][a:b]) for a, b in zip(starts, ends, strict=True)]


def test_a_set_is_packed_when_first_asked_for_and_once(make_recipe: Make, tmp_path: Path) -> None:
    data, prompt = lines(tmp_path / "a.jsonl"), {"sequence_len": 128}
    first = prepare.run(make_recipe(datasets=data, prompt=prompt), RunDir(tmp_path / "1"))
    arrow = Path(first["path"]) / "packed" / store.ARROW
    assert not arrow.exists()
    second = prepare.run(make_recipe(datasets=data, prompt=prompt | {"packing": True}), RunDir(tmp_path / "2"))
    assert (second["cache"], second["key"]) == ("hit", first["key"])
    made = arrow.read_bytes()
    arrow.write_bytes(made[:50])
    (arrow.parent.parent / ".partial-packed-x").mkdir()
    prepare.run(make_recipe(datasets=data, prompt=prompt | {"packing": True}), RunDir(tmp_path / "3"))
    assert arrow.read_bytes() == made
    before = arrow.stat().st_mtime_ns
    prepare.run(make_recipe(datasets=data, prompt=prompt | {"packing": True}), RunDir(tmp_path / "4"))
    assert arrow.stat().st_mtime_ns == before
    assert not list(arrow.parent.parent.glob(".partial-*"))
