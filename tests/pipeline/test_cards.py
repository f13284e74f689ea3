"""On a machine with NVIDIA cards: bf16, NCCL, flash attention on packed rows, Lion, offloading, Liger's kernels.

Each run is the real command on a tiny random model, compared with another way to the same numbers. Skipped elsewhere.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

CARDS = torch.cuda.device_count() if torch.cuda.is_available() else 0
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not CARDS, reason="there is no NVIDIA card here"),
]
BASE = ("lora.dropout=0", "optimizer.learning_rate=2e-3", "evaluation.every_steps=null")
TOLERANCE = 3e-2  # of a loss near 7 in bf16 arithmetic
Train = Callable[..., tuple[list[float], dict[str, Any]]]


def has(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


@pytest.fixture
def train(project: Path, sysml_run: Any, tmp_path: Path) -> Train:
    """Train once; gives the losses and the facts of step 0."""

    def run(hardware: str, *changes: str) -> tuple[list[float], dict[str, Any]]:
        words = [word for one in (*BASE, f"hardware={hardware}", *changes) for word in ("--set", one)]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        sysml_run("tiny.yaml", "--until", "train", "--runs", str(folder), *words)
        (made,) = (folder / "tiny").iterdir()
        lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
        record = json.loads((made / "records/train.json").read_text())
        assert record["peak_card_bytes"] > 0
        return [line["loss"] for line in lines if "loss" in line], record["step0"]

    return run


def card(stage: int | None, devices: int = 1, more: str = "") -> str:
    zero = "null" if stage is None else stage
    return f"{{accelerator: gpu, devices: {devices}, precision: bf16, zero_stage: {zero}{more}}}"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("lora", ["{r: 4, alpha: 8, target_modules: all-linear}", "null"])
def test_bf16_on_one_card_is_near_fp32_on_a_processor(train: Train, stage: int, lora: str) -> None:
    expected, _ = train("{accelerator: cpu, precision: fp32, threads: 1}", f"lora={lora}")
    found, facts = train(card(stage), f"lora={lora}")
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert (facts["precision"], facts["zero_stage"], facts["world_size"]) == ("bf16", stage, 1)
    assert facts["optimizer"] == "torch.optim.adamw.AdamW"


def test_without_deepspeed(train: Train) -> None:
    assert train(card(None))[0] == pytest.approx(train(card(2))[0], abs=TOLERANCE)


@pytest.mark.skipif(CARDS < 2, reason="there is one card")
@pytest.mark.parametrize("stage", [None, 2, 3])
def test_two_cards_through_nccl(train: Train, stage: int | None) -> None:
    alone, _ = train(card(0))
    found, facts = train(card(stage, 2), "training.gradient_accumulation_steps=1")
    assert found == pytest.approx(alone, abs=TOLERANCE)
    assert facts["world_size"] == 2


@has("flash_attn")
@pytest.mark.parametrize("rows", [1, 2])
def test_flash_attention_keeps_packed_rows_apart(train: Train, rows: int) -> None:
    packed = ("model.dtype=bfloat16", "prompt.packing=true", f"training.micro_batch_size={rows}")
    expected, _ = train(card(0), *packed, "model.attn_implementation=sdpa")
    found, facts = train(card(0), *packed)
    assert facts["attention"] == "flash_attention_2"
    assert found == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("stage", [0, 2])
def test_lion_is_bitsandbytes(train: Train, stage: int) -> None:
    lion = "optimizer={name: lion, learning_rate: 3e-4, betas: [0.9, 0.99]}"
    expected, _ = train("{accelerator: cpu, precision: fp32, threads: 1}", lion)
    found, facts = train(card(stage), lion)
    assert facts["optimizer"] == "bitsandbytes.optim.lion.Lion"
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_offloading_changes_no_number(train: Train) -> None:
    found, facts = train(card(3, more=", offload: {optimizer: cpu, parameters: cpu}"))
    assert facts["offload"] == ["cpu", "cpu"]
    assert found == pytest.approx(train(card(3))[0], abs=TOLERANCE)


def test_a_base_in_4_bits(train: Train) -> None:
    found, facts = train(card(2), "quantization.load=nf4")
    assert facts["quantized_as"] == "nf4"
    assert found[-1] < found[0]


@has("liger_kernel")
def test_ligers_kernels_mean_the_same(train: Train) -> None:
    found, facts = train(card(0))
    assert facts["kernels"] == "liger"
    assert found == pytest.approx(train(card(0), "model.kernels=torch")[0], abs=TOLERANCE)


@has("flash_attn")
def test_what_flash_attention_trained_is_evaluated_and_merged(project: Path, sysml_run: Any, tmp_path: Path) -> None:
    """The merge is in fp32 on the processor, where flash attention cannot run."""
    lora = "lora={r: 4, alpha: 8, target_modules: all-linear}"
    changes = (*BASE[1:], lora, "model.dtype=bfloat16", f"hardware={card(None)}")
    words = [word for one in changes for word in ("--set", one)]
    sysml_run("tiny.yaml", "--until", "merge", "--runs", str(tmp_path / "runs"), *words)
    (made,) = (tmp_path / "runs/tiny").iterdir()
    attention = {name: json.loads((made / f"records/{name}.json").read_text()) for name in ("evaluate", "merge")}
    assert attention["evaluate"]["attention"] == "flash_attention_2"
    assert attention["merge"]["attention"] == "sdpa"
