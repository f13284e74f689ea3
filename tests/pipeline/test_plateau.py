"""A run whose validation loss stands still: the rate falls where it should, and going on it falls the same way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sysml_run.rundir import RunDir

from .conftest import Run, read

pytestmark = pytest.mark.slow

RATE = 1e-9  # which changes nothing that can be measured
RECIPE = f"""\
version: 1
name: plateau
model: {{base_model: "tiny:llama", dtype: float32}}
datasets: [{{path: rows.jsonl, type: prompt_completion}}]
split: {{validation: 4}}
prompt: {{sequence_len: 128}}
optimizer: {{name: adamw, learning_rate: {RATE}, lr_scheduler: reduce_lr_on_plateau, plateau_patience: 0}}
training: {{max_steps: 6, micro_batch_size: 1, logging_steps: 1, save_steps: 2, keep_checkpoints: 3}}
evaluation: {{every_steps: 1}}
hardware: {{accelerator: cpu, precision: fp32, threads: 1}}
"""
SHARES = [1, 1, 0.5, 0.25, 0.125, 0.0625]  # the first measurement is the best, each later one no better


@pytest.fixture(scope="module")
def run(project: Path, sysml_run: Run) -> RunDir:
    (project / "plateau.yaml").write_text(RECIPE)
    sysml_run("plateau.yaml", "--runs", "flat", "--until", "train")
    return RunDir(next((project / "flat/plateau").iterdir()))


def rates(run: RunDir) -> list[float]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [line["learning_rate"] for line in lines if "loss" in line]


def test_it_falls_with_each_measurement_that_is_no_better(run: RunDir) -> None:
    assert rates(run) == pytest.approx([RATE * share for share in SHARES])
    facts = read(run.record("train"))["step0"]
    assert (facts["first_learning_rate"], facts["peak_learning_rate"]) == (RATE, RATE)


def test_a_run_that_goes_on_knows_how_far_it_has_fallen(run: RunDir, sysml_run: Run) -> None:
    """From the checkpoint after step 4, as if it had been killed then."""
    before, weights = rates(run), (run.model / "model.safetensors").read_bytes()
    run.record("train").unlink()
    shutil.rmtree(run.model)
    shutil.rmtree(run.checkpoints / "checkpoint-6")
    done = sysml_run("plateau.yaml", "--runs", "flat", "--until", "train", "--resume", str(run.path))
    assert "going on from checkpoint-4" in done.stdout
    assert rates(run) == before
    assert (run.model / "model.safetensors").read_bytes() == weights
