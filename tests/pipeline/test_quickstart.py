"""The README's first command, as a stranger runs it: the small model really learns the task."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")]


@pytest.fixture(scope="module")
def run() -> tuple[Path, str]:
    """The run directory of `make quickstart`, and what was printed."""
    if not (ROOT / ".venv/.ready").is_file():
        pytest.skip("tests were not started by `make test`; `make quickstart` would build a second environment")
    started = time.time()
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["make", "quickstart"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    newest = max((ROOT / "runs/quickstart").iterdir())
    assert newest.stat().st_mtime >= started - 1
    return newest, done.stdout


def test_it_learns(run: tuple[Path, str]) -> None:
    evaluation: dict[str, Any] = json.loads((run[0] / "evaluation.json").read_text())
    before, after = evaluation["before"], evaluation["after"]
    assert after["loss"] <= 0.2 * before["loss"]
    assert after["json_valid"] >= 0.98
    assert after["severity.accuracy"] >= 0.75 > 0.5 >= after["severity.majority"]
    assert after["severity.accuracy"] > before["severity.accuracy"]
    assert after["risk_score.mae"] < 15
    assert evaluation["merged"]["max_logit_difference"] <= evaluation["merged"]["tolerance"]


def test_rows_that_differ_only_in_numbers_are_on_one_side(run: tuple[Path, str]) -> None:
    report = json.loads((run[0] / "data/report.json").read_text())
    assert report["leakage"]["validation"]["masked"] == 0


def test_the_table_is_printed(run: tuple[Path, str]) -> None:
    for words in ("validation loss", "valid JSON", "severity accuracy", "always the commonest answer", "package"):
        assert words in run[1]


EXPORTS = "[{method: gguf}, {method: gptq, group_size: 128, calibration: {samples: 32}}]"


@pytest.fixture(scope="module")
def copies(run: tuple[Path, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and records of the trained model's quantized copies, made of the same run."""
    command = [".venv/bin/sysml-run", "recipes/quickstart.yaml", "--resume", run[0].name, "--only", "quantize"]
    command += ["--set", f"quantization.export={EXPORTS}"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((run[0] / "evaluation.json").read_text())["quantized"]
    return figures, json.loads((run[0] / "records/quantize.json").read_text())["copies"]


@pytest.mark.parametrize(("name", "bits"), [("gguf-Q4_K_M", 7.0), ("gptq-4bit-g128", 9.0)])
def test_copies_answer_like_the_trained_model(
    copies: tuple[dict[str, Any], dict[str, Any]], name: str, bits: float
) -> None:
    """Embeddings, a fifth of this model, keep 8 or 16 bits, and rows of 576 weights take 5 where 4 do not fit."""
    figures, made = copies[0][name], copies[1][name]
    assert figures["perplexity_increase"] < 0.1
    assert figures["top_token_agreement"] > 0.95
    assert figures["bits_per_weight"] < bits
    assert figures["metrics"]["json_valid"] >= 0.9
    assert json.loads(made["answer"])["severity"]


def test_llama_cpp_splits_prompts_as_training_did(copies: tuple[dict[str, Any], dict[str, Any]]) -> None:
    figures = copies[0]["gguf-Q4_K_M"]
    if "same_token_ids" not in figures:
        pytest.skip("llama-cpp-python is not installed: make test installs it")
    assert figures["same_token_ids"] == 1
