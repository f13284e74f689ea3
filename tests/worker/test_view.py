"""What `data` shows and writes is the prepared set itself, token for token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import verification
from sysml_run.prepared import VIEW
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, write_json
from sysml_run.worker import prepare, view
from sysml_run.worker.data import store

Make = Callable[..., Recipe]
ODD = ["🦀", "e\u0301", "中文 text", "a\n\nb", "\x1b[2J", "ünï"]


@pytest.fixture
def recipe(make_recipe: Make, tmp_path: Path) -> Recipe:
    rows = [{"prompt": f"{ODD[i % 6]} is {i}?", "completion": f"{ODD[(i + 1) % 6]} {i}"} for i in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [{"path": str(tmp_path / "a.jsonl"), "type": "prompt_completion"}]
    return make_recipe(datasets=data, split={"validation": 6}, prompt={"train_on": "all", "sequence_len": 256})


def shown(recipe: Recipe, rundir: RunDir, **asked: Any) -> list[dict[str, Any]]:
    write_json(rundir.data / VIEW, {"show": 0, "tokens": False, "out": None} | asked)
    prepare.run(recipe, rundir)
    view.run(recipe, rundir)
    found: list[dict[str, Any]] = read_json(rundir.data / view.SHOWN)
    return found


def test_rows_as_the_model_sees_them(recipe: Recipe, rundir: RunDir, tokenizer: Any, capsys: Any) -> None:
    found = shown(recipe, rundir, show=99, tokens=True)
    rows = store.load(rundir).split("train")
    assert len(found) == len(rows) == 24
    for row, made in zip(found, rows, strict=True):
        assert (row["id"], row["tokens"], row["loss_tokens"]) == (made["id"], made["length"], made["loss_tokens"])
        assert "".join(piece["text"] for piece in row["pieces"]) == tokenizer.decode(made["input_ids"])
        assert [token["id"] for token in row["each"]] == made["input_ids"]
        assert [token["trained"] for token in row["each"]] == [label != -100 for label in made["labels"]]
    assert "rows read" not in capsys.readouterr().out  # `data` prints the report itself


def test_answers_are_the_pieces_that_count(make_recipe: Make, rundir: RunDir, recipe: Recipe, tmp_path: Path) -> None:
    data = [{"path": str(tmp_path / "a.jsonl"), "type": "prompt_completion"}]
    found = shown(make_recipe(datasets=data, split={"validation": 0}), rundir, show=30)
    for row in found:
        number = int(row["id"].rpartition(":")[2])
        (answer,) = [piece["text"] for piece in row["pieces"] if piece["trained"]]
        assert answer == f"{ODD[(number + 1) % 6]} {number}<|im_end|>"
    assert not any("each" in row for row in found)


def test_nothing_asked_for(recipe: Recipe, rundir: RunDir) -> None:
    assert shown(recipe, rundir) == []


def test_every_row_of_every_split_as_lines(recipe: Recipe, rundir: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown(recipe, rundir, out=str(out))
    assert verification.verify(out) == []
    prepared = store.load(rundir)
    for name in store.SPLITS:
        lines = [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert lines == [{key: row[key] for key in view.COLUMNS} for row in prepared.split(name)]
    assert read_json(out / "report.json") == read_json(rundir.data / "report.json")
    manifest = read_json(out / "manifest.json")
    assert manifest["rows"] == {"train": 24, "validation": 6, "test": 0}
    assert set(manifest["files"]) == {"report.json", *(f"{name}.jsonl" for name in store.SPLITS)}
