"""Whole runs on a tiny model, through the real command and real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """\
version: 1
name: tiny
model: {base_model: "tiny:llama", dtype: float32}
datasets:
  - {path: rows.jsonl, type: prompt_completion}
split: {validation: 0.25}
prompt: {sequence_len: 256}
lora: {r: 4, alpha: 8, dropout: 0.1, target_modules: all-linear}
optimizer: {name: adamw, learning_rate: 1e-2, lr_scheduler: cosine, warmup_ratio: 0.1, min_lr_ratio: 0.1}
training: {max_steps: 8, micro_batch_size: 2, gradient_accumulation_steps: 2, logging_steps: 1, save_steps: 4}
evaluation:
  every_steps: 4
  generate: {rows: 3, max_new_tokens: 8}
  metrics: [json_valid, {field: severity, metric: accuracy}, {field: risk_score, metric: mae}]
hardware: {accelerator: cpu, precision: fp32, threads: 1}
"""


def rows(count: int = 32) -> str:
    """Rows whose answer follows from the prompt, as JSON lines."""
    words = ["calm", "odd", "grave"]
    made = (
        {
            "prompt": f"finding {number}: the state of host {number * 7} is {words[number % 3]}",
            "completion": json.dumps({"severity": words[number % 3], "risk_score": 10 * (number % 3)}),
        }
        for number in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in made)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def env(cache: Path) -> Mapping[str, str]:
    """No hub, a cache of our own."""
    return {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "runner")}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its rows."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "rows.jsonl").write_text(rows())
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sysml_run(project: Path, env: Mapping[str, str]) -> Run:
    """Run the command in the project folder; fails unless it exits as expected."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sysml_run.cli", *arguments]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def finished(project: Path, sysml_run: Run) -> Path:
    """The run directory of one whole run of the tiny recipe."""
    sysml_run("tiny.yaml", "--runs", "runs-finished")
    (folder,) = (project / "runs-finished/tiny").iterdir()
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())
