"""What the worker makes of DeepSpeed: facts to compare with the recipe, and checkpoints that are another's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from sysml_run import document, overrides, plan
from sysml_run.errors import StageError
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.worker import zero
from sysml_run.worker.train import training_dtype

RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama, dtype: bfloat16}
datasets: [{path: rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2, micro_batch_size: 2, gradient_accumulation_steps: 4, max_grad_norm: 0.5}
"""


def recipe(hardware: str, *more: str) -> Recipe:
    read = overrides.apply(document.parse(RECIPE, "r.yaml"), [f"hardware={hardware}", *more])
    return plan.make(resolve(read), Machine(4, 2**34, "CPU", True, "bf16", "python"), "/run").recipe


def test_what_step_0_wants_is_the_recipes() -> None:
    offload = "offload: {optimizer: cpu, parameters: nvme}"
    assert zero.wanted(recipe(f"{{accelerator: gpu, devices: 4, nodes: 2, zero_stage: 3, {offload}}}")) == {
        "world_size": 8,
        "zero_stage": 3,
        "offload": ["cpu", "nvme"],
        "batch_triple": [2, 4, 64],
        "clipping": 0.5,
    }
    assert zero.wanted(recipe("{accelerator: cpu}")) == {"world_size": 1, "zero_stage": None}
    assert zero.wanted(recipe("{accelerator: gpu, devices: 2, zero_stage: null}"))["world_size"] == 2


@pytest.mark.parametrize(
    ("hardware", "lora", "dtype"),
    [
        ("{accelerator: gpu, precision: bf16}", "null", "bfloat16"),
        ("{accelerator: gpu, precision: fp16}", "{}", "float16"),
        ("{accelerator: gpu, precision: fp32}", "{}", "float32"),
        ("{accelerator: gpu, precision: bf16, zero_stage: null}", "null", "float32"),
        ("{accelerator: cpu, precision: bf16, zero_stage: 2}", "{}", "float32"),
        ("{accelerator: cpu, precision: bf16}", "{}", "bfloat16"),
    ],
)
def test_what_weights_are_held_in(hardware: str, lora: str, dtype: str) -> None:
    assert training_dtype(recipe(hardware, f"lora={lora}")) == dtype


def test_the_innermost_optimizer() -> None:
    inner = SimpleNamespace(param_groups=[])
    assert zero.innermost(SimpleNamespace(optimizer=SimpleNamespace(optimizer=inner))) is inner
    assert zero.innermost(inner) is inner


@pytest.mark.parametrize(
    ("files", "now", "refused"), [(2, 2, False), (2, 1, True), (4, 2, True), (1, 2, True), (1, 1, False)]
)
def test_a_checkpoint_of_another_number_of_processes(
    files: int, now: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"rng_state_{rank}.pth" for rank in range(files)] if files > 1 else ["rng_state.pth"]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setenv("WORLD_SIZE", str(now))
    if not refused:
        zero.refuse_other_size(tmp_path)
        return
    with pytest.raises(StageError, match=rf"was written by {files} process\(es\), and now there are {now}") as error:
        zero.refuse_other_size(tmp_path)
    assert f"go on with {files}" in str(error.value.hint)


def test_the_saved_dtype_is_named(tmp_path: Path) -> None:
    zero.name_dtype(tmp_path, recipe("{accelerator: cpu}"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text('{"dtype": "float32", "hidden_size": 4}')
    zero.name_dtype(tmp_path, recipe("{accelerator: cpu}"))
    assert json.loads((tmp_path / "config.json").read_text()) == {"dtype": "bfloat16", "hidden_size": 4}
