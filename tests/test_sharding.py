"""`zero_stage: auto` picks the least sharding that leaves room, and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sysml_run import document, overrides, plan, sharding
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

RECIPE = """\
version: 1
name: one
model: {base_model: mistralai/Mixtral-8x7B-Instruct-v0.1, dtype: bfloat16}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
training: {max_steps: 1}
"""
MACHINE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")


def recipe(hardware: str, *more: str) -> Recipe:
    words = [f"hardware={{{hardware}, zero_stage: auto}}", *more]
    return resolve(overrides.apply(document.parse(RECIPE, "r.yaml"), words)).recipe


LORA = ("lora={target_modules: attention}",)
NANO = ("model.base_model=tiny:llama",)


@pytest.mark.parametrize(
    ("hardware", "more", "stage", "words"),
    [
        ("accelerator: gpu, devices: 8, type: a100-80gb", LORA, 3, "11.7 GB of each device's 86 GB, with stage 2 93.5"),
        ("accelerator: gpu, devices: 8, type: h200-141gb", LORA, 0, "take 93.6 GB of each device's 151 GB"),
        ("accelerator: gpu, devices: 8, type: h100-80gb", (), 3, "93.4 GB of each device's 86 GB, with stage 2"),
        ("accelerator: gpu, devices: 8, type: a100", LORA, 2, "does not end with the card's memory"),
        ("accelerator: gpu, type: l4-24gb, offload: {optimizer: cpu}", NANO, 2, "take 0.0 GB of each device's 24 GB"),
        ("accelerator: gpu, type: l4-24gb, offload: {parameters: cpu}", NANO, 3, "take 0.0 GB"),
        ("accelerator: gpu, type: l4-24gb, offload: {optimizer: nvme}", NANO, 3, "take 0.0 GB"),
        ("accelerator: gpu, type: a100", ("model.base_model=/nowhere",), 2, "does not end with"),
        ("accelerator: gpu, type: l4-24gb", ("model.base_model=/nowhere",), 2, "not known before its files are here"),
        ("accelerator: gpu, type: l4-24gb", LORA, 0, "93.6 GB of each device's 24 GB: little or nothing is left"),
        ("accelerator: gpu, type: l4-24gb", LORA, 0, "offload: {optimizer: cpu, parameters: cpu} moves 93.7 GB to the"),
        ("accelerator: gpu, devices: 2, type: l4-24gb", (), 3, "moves 934.1 GB to the memory of each machine"),
        ("accelerator: gpu, type: l4-24gb", NANO, 0, "take 0.0 GB of each device's 24 GB"),
        ("accelerator: cpu, devices: 2", NANO, 0, "take 0.0 GB of each device's 32 GB"),
        ("accelerator: cpu, devices: 2", LORA, 3, "little or nothing is left for activations"),
    ],
)
def test_the_stage_and_why(hardware: str, more: tuple[str, ...], stage: int, words: str) -> None:
    chosen, reason = sharding.stage(recipe(hardware, *more), MACHINE)
    assert chosen == stage
    assert words in reason


def test_a_model_whose_files_are_broken_is_left_to_where_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    asked = recipe("accelerator: gpu, type: l4-24gb", f"model.base_model={tmp_path}")
    assert sharding.stage(asked, MACHINE) == (2, "the size of the model is not known before its files are here")


def test_more_sharding_never_holds_more() -> None:
    """What the search relies on."""

    def size(stage: int) -> Any:
        return sharding._state(recipe("accelerator: gpu, devices: 4, nodes: 2"), MACHINE, stage)

    sizes = [size(stage) for stage in sharding.STAGES]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("hardware", "stage", "reason"),
    [
        ("{accelerator: cpu, devices: 2}", 0, "several processes on a processor train together through DeepSpeed"),
        ("{accelerator: cpu, devices: 2, zero_stage: auto}", 0, "weights, gradients and optimizer state take"),
        ("{accelerator: gpu, zero_stage: auto}", 2, "hardware.type does not end"),
    ],
)
def test_the_plan_settles_it(hardware: str, stage: int, reason: str) -> None:
    read = overrides.apply(document.parse(RECIPE, "r.yaml"), [f"hardware={hardware}", *NANO])
    made = plan.make(resolve(read), MACHINE, "/runs/1")
    assert made.recipe.hardware.zero_stage == stage  # type: ignore[union-attr]
    assert made.sources["hardware.zero_stage"].startswith(f"derived: {reason}")
    (train,) = [launch for launch in made.launches if launch.stage == "train"]
    assert f'"stage": {stage}' in train.files["launch/deepspeed.json"]
