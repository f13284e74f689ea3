"""`sysml-run show`: every key once, in one order, in the same words wherever the file lies."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sysml_run import cli, document, resources
from sysml_run.position import dotted, pointer
from sysml_run.resolve import resolve

RECIPE = """\
# which order keys stand in is no matter
name: "shown"
version: 1
datasets:
  - path: ./rows.jsonl
    type: rows
    map:
      prompt: |-
        First line: {{ a }}
        second line
      completion: ""
  - {path: /data/more.jsonl, type: rows, map: {prompt: "null", completion: " b"}}
model: {base_model: models/words}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2}
evaluation: {generate: {rows: 1}, metrics: [json_valid, {field: a, metric: mae}]}
artifacts: {dir: ../../../../../../../../../../out}
"""
LINES = """\
version: 1
name: shown
model.base_model: models/words
model.tokenizer: null
datasets.0.path: rows.jsonl
datasets.0.map.prompt: |
  First line: {{ a }}
  second line
datasets.0.map.completion: ""
datasets.1.path: /data/more.jsonl
datasets.1.map.prompt: "null"
datasets.1.map.completion: " b"
optimizer.learning_rate: 0.001
optimizer.betas: [0.9, 0.999]
training.max_steps: 2
evaluation.metrics.0: json_valid
evaluation.metrics.1.field: a
tracking: []
artifacts.dir: ../../../../../../../../../../out
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/one.yaml").write_text(RECIPE)
    return tmp_path / "deep/er/one.yaml"


def shown(capsys: Any, *arguments: str) -> str:
    assert cli.main(["show", *arguments]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    return str(found.out)


def test_lines(recipe: Path, capsys: Any) -> None:
    text = shown(capsys, "deep/er/one.yaml")
    at = -1
    for line in LINES.splitlines(keepends=True):
        assert text.count(f"\n{line}") == 1 or text.startswith(line), line
        assert text.find(line) > at, line
        at = text.find(line)


def test_the_same_wherever_it_lies(recipe: Path, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git hands over temporary files; what is beside the real one is not beside those."""
    (recipe.parent / "models/words").mkdir(parents=True)
    (recipe.parent / "rows.jsonl").write_text("{}")
    here = shown(capsys, "deep/er/one.yaml")
    (tmp_path / "git-blob").mkdir()
    recipe.rename(tmp_path / "git-blob/one.yaml")
    assert shown(capsys, "git-blob/one.yaml") == here
    monkeypatch.chdir("/")
    assert shown(capsys, str(tmp_path / "git-blob/one.yaml")) == here


def test_other_words_for_the_same(recipe: Path, capsys: Any) -> None:
    before = shown(capsys, "deep/er/one.yaml")
    text = RECIPE.replace("./rows.jsonl", "x/../rows.jsonl").replace("1e-3}", "0.001}  # a rate")
    recipe.write_text(text + "seed: 42\n")
    assert shown(capsys, "deep/er/one.yaml") == before


@pytest.mark.parametrize("name", sorted(path.name for path in resources.recipes().glob("*.yaml")))
def test_every_key_is_there_once(name: str, capsys: Any) -> None:
    path = resources.recipes() / name
    keys = [line.partition(": ")[0] for line in shown(capsys, str(path)).splitlines() if not line.startswith("  ")]
    sources = resolve(document.load(path)).sources
    assert len(keys) == len(set(keys))
    assert {key for key in sources if not isinstance(pointer(key)[-1], int)} <= set(keys)
    assert {dotted(pointer(key)) for key in keys} == set(keys)


def test_changes_and_json(recipe: Path, capsys: Any) -> None:
    changes = ("--set", "seed=7", "--set", "datasets.0.path=other.jsonl", "--hardware", "gpu:2")
    text = shown(capsys, "deep/er/one.yaml", *changes)
    assert "\nseed: 7\n" in text
    assert "\nhardware.devices: 2\n" in text
    assert f"\ndatasets.0.path: {recipe.parents[2]}/other.jsonl\n" in text
    found = json.loads(shown(capsys, "deep/er/one.yaml", *changes, "--format", "json"))
    assert found["recipe"] == "deep/er/one.yaml"
    assert found["values"]["seed"] == 7
    assert found["sources"]["seed"] == "--set seed=7"
    assert found["sources"]["optimizer.learning_rate"] == "deep/er/one.yaml:14"


@pytest.mark.parametrize("order", [1, -1])
def test_set_changes_the_hardware_that_hardware_names(recipe: Path, capsys: Any, order: int) -> None:
    """Whichever stands first on the command line."""
    moved, changed = ["--hardware", "gpu:2"], ["--set", "hardware.zero_stage=3"]
    text = shown(capsys, "deep/er/one.yaml", *[word for words in [moved, changed][::order] for word in words])
    assert "\nhardware.devices: 2\n" in text
    assert "\nhardware.zero_stage: 3\n" in text


def test_control_characters_are_escaped(recipe: Path, capsys: Any) -> None:
    text = shown(
        capsys, "deep/er/one.yaml", "--set", 'description="\\e[31m"', "--set", 'prompt.template="{{ a }}\\n\\a"'
    )
    assert '\ndescription: "\\u001b[31m"\n' in text
    assert '\nprompt.template: "{{ a }}\\n\\u0007"\n' in text


def test_what_is_not_valid_is_not_shown(recipe: Path, capsys: Any) -> None:
    assert cli.main(["show", "deep/er/one.yaml", "--set", "seed=x"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "seed: expected a whole number" in found.err
    assert (
        cli.main(
            ["show", "deep/er/one.yaml", "--set", "optimizer.warmup_steps=2", "--set", "optimizer.warmup_ratio=0.1"]
        )
        == 2
    )
    assert "optimizer.warmup_steps" in capsys.readouterr().err


def test_standard_input_is_shown_and_named(recipe: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = shown(capsys, "deep/er/one.yaml")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(RECIPE.encode())))
    assert shown(capsys, "-") == here
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(RECIPE.encode())))
    found = json.loads(shown(capsys, "-", "--format", "json"))
    assert (found["recipe"], found["sources"]["name"]) == ("<stdin>", "<stdin>:2")
