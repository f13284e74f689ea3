"""The prepared set of a recipe, found by the front as the worker left it, and its key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sysml_run import cli, datafiles, document, modelfiles, prepared
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.rundir import RunDir, read_json, write_json
from sysml_run.worker import prepare
from sysml_run.worker.data import store

Make = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sysml-run"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Recipes over 30 rows and a folder that holds a tokenizer's files."""
    (tmp_path / "words").mkdir()
    (tmp_path / "words/tokenizer.json").write_text("{}")
    (tmp_path / "words/config.json").write_text("{}")
    rows = [{"prompt": f"What is {number}?", "completion": "A number."} for number in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def made(**sections: Any) -> Recipe:
        values = {
            "version": 1,
            "name": "one",
            "model": {"base_model": "./words"},
            "datasets": [{"path": "rows.jsonl", "type": "prompt_completion"}],
            "split": {"validation": 0.2},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "training": {"num_epochs": 1},
        }
        text = json.dumps(values | sections)
        return resolve(document.parse(text, str(tmp_path / "one.yaml"))).recipe

    return made


def seal(recipe: Recipe, rows: dict[str, int]) -> Path:
    """An empty set under the recipe's key, sealed by the worker's own hand."""
    files, words = prepared.sources(recipe), modelfiles.tokenizer(recipe)
    assert files is not None
    assert words is not None
    key = prepared.key(recipe, files, words)
    folder = prepared.folder(key)
    splits = {name: {"rows": count, "tokens": {"total": 10 * count}} for name, count in rows.items()}
    write_json(folder / prepared.REPORT, {"splits": splits})
    store.seal(folder, key, rows)
    return folder


def test_what_the_worker_prepares_is_found_without_its_libraries(make: Make, tmp_path: Path, cache: Path) -> None:
    recipe = make(model={"base_model": "tiny:llama"})
    assert prepared.rows(recipe) is None
    record = prepare.run(recipe, RunDir(tmp_path / "run"))
    found = prepared.rows(recipe)
    assert found is not None
    assert found.rows == record["rows"]
    assert sum(found.rows.values()) == 30
    report = read_json(tmp_path / "run/data/report.json")
    assert report["template"].pop("origin") == "that of tiny:llama"  # the run's own word on it
    assert found.report == report
    assert len(store.load(RunDir(tmp_path / "run")).split("train")) == found.rows["train"]
    code = (
        "import json, sys; from sysml_run import prepared, resolve\n"
        "print(prepared.rows(resolve.build(json.loads(sys.argv[1]))).rows['train'])\n"
        "print({'torch', 'transformers', 'numpy', 'jinja2', 'tqdm', 'sysml_run.worker'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(prepared.__file__).parents[1])}
    command = [sys.executable, "-c", code, json.dumps(asdict(recipe))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == f"{found.rows['train']}\nset()\n"


def test_the_plan_counts_its_steps(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    training = {"num_epochs": 1, "micro_batch_size": 4}
    recipe = make(training=training)
    values = {
        name: value for name, value in asdict(recipe).items() if name in ("version", "name", "model", "optimizer")
    }
    rows = [{"path": "rows.jsonl", "type": "prompt_completion"}]
    values |= {"datasets": rows, "split": {"validation": 0.2}, "training": training}
    (tmp_path / "one.yaml").write_text(json.dumps(values))
    assert cli.main(["plan", "one.yaml", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] is None
    seal(recipe, {"train": 25, "validation": 5, "test": 0})
    assert cli.main(["plan", "one.yaml", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == {"per_epoch": 7, "total": 7, "warmup": 0}


def test_a_damaged_set_is_none(make: Make) -> None:
    recipe = make()
    folder = seal(recipe, {"train": 5, "validation": 1, "test": 0})
    found = prepared.rows(recipe)
    assert found is not None
    assert found.rows["train"] == 5
    (folder / prepared.REPORT).write_text("{}")
    assert prepared.rows(recipe) is None
    (folder / prepared.POINTER).write_text("{")
    assert prepared.rows(recipe) is None


@pytest.mark.parametrize(
    "section",
    [
        {"prompt": {"sequence_len": 99}},
        {"prompt": {"train_on": "all"}},
        {"split": {"validation": 0.3}},
        {"seed": 1},
        {"datasets": [{"path": "rows.jsonl", "type": "prompt_completion", "map": {"system": "Be short."}}]},
        {"datasets": [{"path": "rows.jsonl", "type": "prompt_completion", "where": "true"}]},
        {"datasets": [{"path": "rows.jsonl", "type": "prompt_completion", "weight": 2}]},
        {"datasets": [{"path": "rows.jsonl", "type": "rows"}]},
    ],
)
def test_what_shapes_rows_is_in_the_key(make: Make, section: dict[str, Any]) -> None:
    seal(make(), {"train": 5})
    assert prepared.rows(make()) is not None
    assert prepared.rows(make(**section)) is None


@pytest.mark.parametrize(
    "section",
    [
        {"prompt": {"packing": True, "padding": "max_length"}},
        {"datasets": [{"path": "./rows.jsonl", "type": "prompt_completion"}]},
        {"training": {"max_steps": 3}},
        {"name": "two"},
    ],
)
def test_what_does_not_is_not(make: Make, section: dict[str, Any]) -> None:
    seal(make(), {"train": 5})
    assert prepared.rows(make(**section)) is not None


def test_rows_tokenizer_and_code_are_in_the_key(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(make(), {"train": 5})
    (tmp_path / "words/tokenizer.json").write_text("{ }")
    assert prepared.rows(make()) is None
    seal(make(), {"train": 5})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("{}\n")
    assert prepared.rows(make()) is None
    seal(make(), {"train": 5})
    before = prepared.code_digest()
    package = tmp_path / "package"
    shutil.copytree(prepared.PACKAGE / "worker/data", package / "worker/data")
    for name in ("worker/models.py", "redaction.py"):
        shutil.copy(prepared.PACKAGE / name, package / name)
    monkeypatch.setattr(prepared, "PACKAGE", package)
    assert prepared.code_digest() == before
    (package / "worker/data/__pycache__").mkdir(exist_ok=True)
    (package / "worker/data/__pycache__/other.pyc").write_text("compiled")
    assert prepared.code_digest() == before
    (package / "worker/data/folder").mkdir()
    (package / "worker/data/folder/template.jinja").write_text("{{ text }}")
    assert prepared.code_digest() != before
    assert prepared.rows(make()) is None


@pytest.mark.parametrize(
    "sections",
    [
        {"datasets": [{"path": "absent.jsonl", "type": "messages"}]},
        {"datasets": [{"path": "hub:owner/name", "type": "messages"}]},
        {"model": {"base_model": "owner/name"}},
        {"model": {"base_model": "./absent"}},
        {"model": {"base_model": "package:absent_module/a.gguf"}},
        {"model": {"base_model": "tiny:llama"}},
    ],
)
def test_what_is_not_at_hand_is_not_known(
    make: Make, sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert prepared.rows(make(**sections)) is None


def test_much_data_is_not_read_for_a_count(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = make()
    seal(recipe, {"train": 5})
    monkeypatch.setattr(prepared, "MOST_READ", 10)
    assert prepared.sources(recipe) is None
    assert prepared.rows(recipe) is None
    (tmp_path / "words.gguf").write_bytes(b"GGUF and more than ten bytes")
    monkeypatch.setattr(datafiles, "sha256", None)
    assert prepared.counted(make(model={"base_model": "./words.gguf"}), []) is None


def test_the_digest_of_the_data_is_of_names_and_contents(make: Make, tmp_path: Path) -> None:
    found = prepared.sources(make())
    assert found is not None
    before = prepared.digest(found)
    (tmp_path / "other").mkdir()
    (tmp_path / "rows.jsonl").rename(tmp_path / "other/rows.jsonl")
    moved = prepared.sources(make(datasets=[{"path": "other/rows.jsonl", "type": "messages"}]))
    assert moved is not None
    assert prepared.digest(moved) == before
    (tmp_path / "other/rows.jsonl").write_text("{}\n")
    changed = prepared.sources(make(datasets=[{"path": "other/rows.jsonl", "type": "messages"}]))
    assert changed is not None
    assert prepared.digest(changed) != before


def test_rows_of_another_tokenizer_library_are_not_found(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(make(), {"train": 5})
    found = prepared.version
    monkeypatch.setattr(prepared, "version", lambda name: "0.0" if name == "tokenizers" else found(name))
    assert prepared.rows(make()) is None
    assert found("no-such-library") is None
