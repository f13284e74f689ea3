"""What the train stage records of memory: this process's own peak, and the prediction for the recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sysml_run import document, machine, plan, resolve
from sysml_run.recipe import Recipe
from sysml_run.worker import memory

MB = 10**6
# Its parent holds 400 MB when it is started, which getrusage counts as its own; it holds 100 MB for a moment.
CHILD = """\
from sysml_run.worker import memory
before = memory.resident()
held = b"x" * 100_000_000
del held
print(before, memory.resident())
"""
PARENT = f"""\
import subprocess, sys
held = b"x" * 400_000_000
print(subprocess.run([sys.executable, "-c", {CHILD!r}], capture_output=True, text=True, check=True).stdout)
"""


def recipe(**model: str) -> Recipe:
    values = {
        "version": 1,
        "name": "test",
        "model": {"base_model": "tiny:llama", "dtype": "float32"} | model,
        "datasets": [{"path": "rows.jsonl", "type": "text"}],
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "training": {"max_steps": 1, "micro_batch_size": 1},
    }
    resolved = resolve.resolve(document.parse(json.dumps(values), "recipe.yaml"))
    return plan.settle(resolved, machine.look()).recipe


def test_the_peak_is_this_processs_own_and_stays() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, check=True, timeout=300)
    before, after = map(int, done.stdout.split())
    assert before < 300 * MB
    assert after - before > 90 * MB


def test_without_proc_the_system_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = memory.resident()
    for status in (tmp_path / "absent", tmp_path / "other"):
        monkeypatch.setattr(memory, "STATUS", status)
        assert memory.resident() == pytest.approx(here, rel=0.5)
        (tmp_path / "other").write_text("Name: python\n")


def test_the_record() -> None:
    expected = memory.predicted(recipe())
    assert expected is not None
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "overhead")
    assert expected["total"] == sum(expected[part] for part in parts)
    record = memory.record(SimpleNamespace(lengths=[7, 203, 12]), expected)
    assert record["predicted"] == expected
    assert record["measured"]["process"] > 30 * MB
    assert record["longest_row"] == 203


def test_an_unknown_architecture_is_not_predicted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert memory.predicted(recipe(base_model=str(tmp_path))) is None
