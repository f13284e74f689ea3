"""Operations of a step by the published formulas, and the hours they take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sysml_run import counts, document, overrides, plan
from sysml_run.architecture import Architecture
from sysml_run.estimate import hours
from sysml_run.machine import Machine
from sysml_run.prepared import Counted
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: meta-llama/Meta-Llama-3-8B}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
prompt: {sequence_len: 8192}
training: {max_steps: 1, micro_batch_size: 1}
"""
MIXTRAL = "model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1"


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


def settled(hardware: str, *changes: str) -> Recipe:
    read = overrides.apply(overrides.swap_hardware(document.parse(RECIPE, "r.yaml"), hardware), changes)
    return plan.settle(resolve(read), HERE).recipe


def model(recipe: Recipe) -> Architecture:
    found = counts.architecture_of(recipe)
    assert found is not None
    return found


def took(recipe: Recipe, tokens: int = 8192, steps: int | None = None, here: Machine = HERE) -> hours.Hours:
    found = hours.hours(recipe, here, plan.batch(recipe), tokens, steps)
    assert found is not None
    return found


def test_a_full_fine_tune_is_six_operations_a_weight_and_attention() -> None:
    """PaLM's appendix B: 6 N + 12 L H Q T, here of 7.5 billion weights that are multiplied by."""
    recipe = settled("gpu:1xh100-80gb")
    used = hours.active(recipe, model(recipe))
    assert used == 8_030_261_248 - 128_256 * 4096 - 65 * 4096  # without the embedding and the norms
    assert hours.per_token(recipe, model(recipe), 8192) == 6 * used + 12 * 32 * 4096 * 8192


def test_checkpointing_adds_a_forward_pass_and_adapters_save_the_gradients_of_weights() -> None:
    whole, lora = settled("gpu:1xh100-80gb"), settled("gpu:1xh100-80gb", "lora={r: 16}")
    again = settled("gpu:1xh100-80gb", "training.gradient_checkpointing=true")
    found = model(whole)
    one = hours.per_token(whole, found, 1)
    assert hours.per_token(again, found, 1) == pytest.approx(one * 4 / 3)
    assert hours.per_token(lora, found, 1) == pytest.approx(one * 2 / 3, rel=0.02)


def test_experts_are_paid_for_as_they_are_used_and_on_a_tpu_all() -> None:
    """12.9 of Mixtral's 46.7 billion parameters are used for a token (mistral.ai/news/mixtral-of-experts)."""
    card, tpu = settled("gpu:1xh100-80gb", MIXTRAL), settled("tpu:v3-8", MIXTRAL)
    assert hours.active(card, model(card)) == pytest.approx(12.9e9, rel=0.02)
    assert hours.active(tpu, model(tpu)) == pytest.approx(46.6e9, rel=0.01)


def test_llama_2_took_as_long_as_was_published(tmp_path: Path) -> None:
    """184,320 hours of an A100 for 2e12 tokens of Llama 2 7B (Touvron et al. 2023, table 2) lie in the range."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')  # its sizes are what transformers fills in
    shape = (f"model.base_model={tmp_path}", "prompt.sequence_len=4096", "training.micro_batch_size=1000")
    found = took(settled("gpu:1xa100-80gb", *shape), tokens=4_096_000, steps=488_281)
    assert found.hours is not None
    assert found.hours[0] < 184_320 < found.hours[1]


def test_hours_are_steps_times_seconds_shared_by_devices() -> None:
    one = took(settled("gpu:1xh100-80gb"), steps=3600)
    eight = took(settled("gpu:8xh100-80gb"), tokens=8 * 8192, steps=3600)
    assert one.seconds is not None
    assert one.seconds[0] < one.seconds[1]
    assert one.hours == pytest.approx(one.seconds)
    assert eight.hours == pytest.approx(one.hours)
    assert eight.flops == pytest.approx(8 * one.flops)
    assert took(settled("gpu:1xh100-80gb")).hours is None


def test_no_step_is_faster_than_its_weights_are_read() -> None:
    """One token against 15 GB of weights: memory is what it waits for."""
    recipe = settled("gpu:1xh100-80gb", "lora={}")
    found = took(recipe, tokens=1)
    least = 2 * 2 * hours.active(recipe, model(recipe)) / 3350e9
    assert found.seconds == (least, least)
    four = took(settled("gpu:1xh100-80gb", "lora={}", "quantization.load=nf4"), tokens=1)
    assert four.seconds == (least / 4, least / 4)
    eight = took(settled("gpu:1xh100-80gb", "lora={}", "quantization.load=int8"), tokens=1)
    assert eight.seconds == (least / 2, least / 2)


@pytest.mark.parametrize(
    ("hardware", "changes", "here", "words"),
    [
        ("cpu", (), HERE, "a processor's rate"),
        ("gpu:8", (), HERE, "no card whose rate"),
        ("gpu:1xh100-80gb", ("hardware.precision=fp32", "hardware.tf32=false"), HERE, "rate in fp32"),
        ("gpu:1xt4-16gb", ("hardware.precision=fp32",), HERE, "rate in fp32"),
        ("tpu:v3-8", ("hardware.precision=fp32",), HERE, "TPU in fp32"),
        ("tpu:v3-8", (), dataclasses.replace(HERE, virtual=8), "a processor's rate"),
    ],
)
def test_rates_that_are_not_known(hardware: str, changes: tuple[str, ...], here: Machine, words: str) -> None:
    found = took(settled(hardware, *changes), here=here, steps=5)
    assert found.seconds is None
    assert found.hours is None
    assert words in found.why
    assert found.flops > 0


def test_rates_that_are_known() -> None:
    assert hours.peak(settled("gpu:1xh100-80gb"), HERE) == (989e12, "")
    assert hours.peak(settled("gpu:1xh100-80gb", "hardware.precision=fp32"), HERE) == (989e12 / 2, "")
    assert hours.peak(settled("tpu:v3-8"), HERE)[0] == pytest.approx(61.5e12)


def test_a_model_that_is_not_known_takes_no_time() -> None:
    recipe = settled("gpu:1xh100-80gb", "model.base_model=nobody/knows")
    assert hours.hours(recipe, HERE, plan.batch(recipe), 10, 10) is None


def test_tokens_of_a_step() -> None:
    recipe = settled("gpu:2xh100-80gb")
    batch, report = plan.batch(recipe), {"splits": {"train": {"rows": 4, "tokens": {"total": 40}}}}
    assert hours.tokens(recipe, batch, None) == (None, 16384)
    assert hours.tokens(recipe, batch, Counted({"train": 4}, report)) == (20, 16384)
    report["splits"]["train"]["rows"] = 0
    assert hours.tokens(recipe, batch, Counted({"train": 0}, report)) == (0, 16384)
    packed = settled("gpu:2xh100-80gb", "prompt.packing=true")
    assert hours.tokens(packed, batch, None) == (16384, 16384)
