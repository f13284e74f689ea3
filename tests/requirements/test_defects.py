"""What went wrong unseen in the pipelines' own programs: each is refused here, or cannot be written.

The table names the tests that show it, most of them beside the part they are about; the rest is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sysml_run import document, options
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare, train
from sysml_run.worker.data import store

from .test_table import TESTS, functions

DEFECTS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("defects.yaml").read_text())
GROUPS = {"specialist": 10, "gguf": 4, "qlora": 8, "embedded": 11, "analyzer": 4, "all": 2}
Make = Callable[[list[dict[str, Any]], dict[str, Any]], dict[str, Any]]


def test_every_defect_has_tests() -> None:
    counted = {group: sum(name.startswith(f"{group} ") for name in DEFECTS) for group in GROUPS}
    assert counted == GROUPS
    assert sum(GROUPS.values()) == len(DEFECTS)


@pytest.mark.parametrize("defect", DEFECTS)
def test_its_tests_are_there(defect: str) -> None:
    assert DEFECTS[defect]
    for node in DEFECTS[defect]:
        file, _, name = node.partition("::")
        assert name in functions(TESTS / file), node


@pytest.mark.parametrize("command", options.COMMANDS)
def test_no_option_takes_a_token(command: str) -> None:
    """A command line is kept by shells and seen by everybody on the machine."""
    known = [text for action in options.parser(command)._actions for text in action.option_strings]
    assert not [text for text in known if "token" in text.replace("--tokens", "") or "key" in text or "secret" in text]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Recipe, RunDir, dict[str, Any]]]:
    """Rows as the prepare stage leaves them, with its report."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(rows: list[dict[str, Any]], **sections: Any) -> tuple[Recipe, RunDir, dict[str, Any]]:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {
            "version": 1,
            "name": "one",
            "model": {"base_model": "tiny:llama", "dtype": "float32"},
            "datasets": [{"path": "rows.jsonl", "type": "prompt_completion"}],
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "training": {"max_steps": 1, "gradient_accumulation_steps": 1},
            "hardware": {"accelerator": "cpu"},
        }
        recipe = resolve(document.parse(json.dumps(values | sections), str(tmp_path / "one.yaml"))).recipe
        rundir = RunDir(tmp_path / "run")
        rundir.path.mkdir()
        prepare.run(recipe, rundir)
        return recipe, rundir, read_json(rundir.data / "report.json")

    return make


def test_what_is_measured_is_drawn_from_rows_held_out(prepared: Callable[..., Any]) -> None:
    rows = [{"prompt": f"Is {word} odd?", "completion": word} for word in map(str, range(60))]
    recipe, rundir, _ = prepared(rows, split={"validation": 0.5}, evaluation={"max_rows": 7})
    kept = store.load(rundir)
    measured = train.rows(recipe, kept)
    assert len(measured) == 7
    assert set(measured["id"]) <= set(kept.split("validation")["id"])
    assert not set(measured["id"]) & set(kept.split("train")["id"])


def test_one_class_alone_is_told(prepared: Callable[..., Any]) -> None:
    rows = [{"prompt": f"Rate {number}", "completion": "{}", "label": "safe"} for number in range(30)]
    _, _, report = prepared(rows, split={"validation": 0.2, "stratify_by": "label"})
    assert "every row has the same label: safe" in report["warnings"]


def test_a_contract_on_both_sides_is_told(prepared: Callable[..., Any]) -> None:
    """The same source under another address, drawn at random."""
    rows = [{"prompt": f"contract C{number % 5} at 0x{number:040x}", "completion": "safe"} for number in range(40)]
    _, _, report = prepared(rows, split={"validation": 0.25})
    assert any("stand in training but for numbers and hex" in warning for warning in report["warnings"])
