"""The prediction for a processor: against what real runs held, and what it must do whatever its figures."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sysml_run import document, estimate, machine, overrides, plan, resolve
from sysml_run.estimate import Estimate, cpu
from sysml_run.rundir import read_json
from sysml_run.worker import measure

ROOT = Path(__file__).parents[2]
HERE = machine.Machine(2, 32 * 10**9, "a processor", True, "it has", sys.executable)
RECIPE = """\
version: 1
name: estimated
model: {base_model: mistralai/Mistral-7B-v0.1, dtype: float32}
datasets: [{path: /data/rows.jsonl, type: messages}]
prompt: {sequence_len: 1024}
optimizer: {name: adamw, learning_rate: 1e-4}
training: {max_steps: 1, micro_batch_size: 2}
hardware: {accelerator: cpu}
"""
LORA = "lora={r: 16, alpha: 32, target_modules: all-linear}"
FP32 = "hardware.precision=fp32"
CHECKPOINTED = "training.gradient_checkpointing=true"
MIXTRAL = "model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1"
VARIANTS = [(), (LORA,), (FP32,), (LORA, FP32), (LORA, "lora.dropout=0.1"), (MIXTRAL,), (MIXTRAL, LORA)]


def of(*changes: str) -> Estimate:
    read = overrides.apply(document.parse(RECIPE, "recipe.yaml"), list(changes))
    found = estimate.of(plan.settle(resolve.resolve(read), HERE).recipe, HERE)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_cpu", ROOT / "benchmarks/memory_cpu.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["memory_cpu"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tiny:llama lora 128 kept", "llama 30M full 512 checkpointed", "llama 30M lora 512 kept"]
)
def test_a_real_run_holds_what_was_predicted(benchmark: ModuleType, name: str, tmp_path: Path) -> None:
    """The run itself records both, and `report` shows them."""
    (point,) = [point for point in benchmark.GRID if point.name == name]
    found = benchmark.measure(point, benchmark.prepared(tmp_path)[point.model], tmp_path)
    ratio = found["predicted"]["total"] / found["measured"]["process"]
    assert ratio == pytest.approx(1, abs=benchmark.CLOSE)
    (run,) = tmp_path.glob("*/memory/*")
    command = [sys.executable, "-m", "sysml_run.cli", "report", str(run)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "runner")}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=env, timeout=300).stdout
    assert f"predicted {found['predicted']['total'] / 1e9:.2f} GB" in text
    shown = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=True, env=env).stdout
    (data,) = json.loads(shown)["runs"]
    assert data["memory"]["ratio"] == pytest.approx(1 / ratio, abs=0.001)
    assert read_json(run / "records/train.json")["memory"] == found


def test_the_grid_is_written_as_a_table(benchmark: ModuleType) -> None:
    rows = [
        (benchmark.GRID[0], {"predicted": {"total": 11 * 10**8}, "measured": {"process": 10**9}}),
        (benchmark.GRID[1], {"predicted": {"total": 8 * 10**8}, "measured": {"process": 10**9}}),
    ]
    text = benchmark.as_text(rows)
    assert "| tiny:llama full 128 kept | 1.100 | 1.000 | 1.10 |" in text
    assert "1 of 2 within 15%, 15.0% off on average; from 0.80 to 1.10." in text
    points = json.loads(benchmark.as_json(rows))["points"]
    assert [point["measured"]["process"] for point in points] == [10**9, 10**9]


@pytest.mark.parametrize("changes", VARIANTS)
def test_more_takes_more(changes: tuple[str, ...]) -> None:
    lengths = [of(*changes, f"prompt.sequence_len={length}").total for length in (256, 1024, 4096)]
    batches = [of(*changes, f"training.micro_batch_size={rows}").total for rows in (1, 2, 8)]
    assert lengths == sorted(set(lengths))
    assert batches == sorted(set(batches))


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("length", [1024, 4096])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_checkpointing_never_takes_more(changes: tuple[str, ...], length: int, attention: str) -> None:
    always = (*changes, f"prompt.sequence_len={length}", f"model.attn_implementation={attention}")
    assert of(*always, CHECKPOINTED).total <= of(*always).total


def test_eager_attention_grows_with_the_square_of_the_length() -> None:
    eager, flat = (
        [of(LORA, f"model.attn_implementation={name}", f"prompt.sequence_len={length}") for length in (2048, 4096)]
        for name in ("eager", "sdpa")
    )
    assert eager[1].activations > 3 * eager[0].activations
    assert flat[1].activations == pytest.approx(2 * flat[0].activations, rel=0.01)


def test_packed_rows_need_a_mask() -> None:
    assert of(LORA, "prompt.packing=true").activations > of(LORA).activations


def test_adapters_on_a_bf16_base_leave_no_fp32_file_in_memory() -> None:
    wide, narrow = of(LORA), of(LORA, "model.dtype=bfloat16")
    assert wide.overhead - narrow.overhead > 4 * 6 * 10**9  # nearly all of 7.2 B numbers


def test_validation_during_training_counts_its_logits() -> None:
    short = (LORA, "prompt.sequence_len=128", "training.micro_batch_size=1", "split.validation=0.1")
    found = of(*short, "evaluation.every_steps=5")
    assert cpu.EVALUATED == measure.TOKENS_A_BATCH
    assert found.logits == 12 * cpu.EVALUATED * 32000
    assert of(*short).logits < found.logits


def test_processes_that_share_hold_less_each() -> None:
    alone = of()
    shared = of("hardware.devices=2", "hardware.zero_stage=2")
    assert shared.gradients == alone.gradients // 2
    assert shared.overhead > cpu.WORKER + cpu.DEEPSPEED
