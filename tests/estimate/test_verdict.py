"""Whether a step fits, and what everybody gets wrong about that."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysml_run import cards, document, machine, overrides, plan
from sysml_run.estimate import Estimate
from sysml_run.estimate.verdict import PARTS, Verdict, available, verdict
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: meta-llama/Meta-Llama-3-8B}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
training: {max_steps: 1, micro_batch_size: 1}
"""


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


def settled(hardware: str, *changes: str, here: Machine = HERE) -> Recipe:
    read = overrides.apply(overrides.swap_hardware(document.parse(RECIPE, "r.yaml"), hardware), changes)
    return plan.settle(resolve(read), here).recipe


def made(total: int, available: int | None) -> Verdict:
    return Verdict(Estimate(total - 3, 0, 0, 2, 0, 1, 0, 0.1), available)


@pytest.mark.parametrize(
    ("available", "word"),
    [(1100, "fits"), (1099, "fits barely"), (1000, "fits barely"), (999, "does not fit"), (None, None)],
)
def test_the_word(available: int | None, word: str | None) -> None:
    found = made(1000, available)
    assert found.word == word
    assert found.ends == (900, 1100)
    assert found.dominates == "weights"


@pytest.mark.parametrize(
    ("hardware", "here", "size"),
    [
        ("gpu:8xh100-80gb", HERE, 81559 * 2**20),
        ("gpu:8", HERE, None),
        ("cpu:2", HERE, 32 * 10**9),
        ("tpu:v3-8", HERE, 16 * 2**30),
        ("tpu:v3-8", Machine(8, 64 * 10**9, "", True, "", "", virtual=8), 8 * 10**9),
        ("cpu", Machine(8, 64 * 10**9, "", True, "", "", elsewhere=True), None),
    ],
)
def test_what_is_there(hardware: str, here: Machine, size: int | None) -> None:
    assert available(settled(hardware, here=here), here) == size


@pytest.mark.parametrize("model", ["nobody/knows", "/no/such/folder"])
def test_a_model_that_is_not_known(model: str) -> None:
    assert verdict(settled("gpu:1xl4-24gb", f"model.base_model={model}"), HERE) is None


def test_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert verdict(settled("gpu:1xl4-24gb", f"model.base_model={tmp_path}"), HERE) is None


@pytest.mark.parametrize("length", [512, 2048])
def test_eight_billion_parameters_whole_with_adamw_do_not_fit_16_gb(length: int) -> None:
    """16 bytes a parameter (Rajbhandari et al. 2020, section 3.1) are 128 GB before the first activation."""
    for checkpointing in ("true", "false"):
        changes = (f"training.gradient_checkpointing={checkpointing}", f"prompt.sequence_len={length}")
        found = verdict(settled("gpu:1xt4-16gb", "hardware.precision=fp16", *changes), HERE)
        assert found is not None
        assert found.word == "does not fit"
        assert found.estimate.total > 100e9


def test_mixtral_with_adapters_in_bf16_does_not_fit_a_v2_8() -> None:
    """93 GB of weights over 8 cores are more than the 8 GiB of each."""
    mixtral = ("model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1", "lora={target_modules: attention}")
    found = verdict(settled("tpu:v2-8", *mixtral, "training.gradient_checkpointing=true"), HERE)
    assert found is not None
    assert found.word == "does not fit"
    assert found.dominates == "weights"


def test_the_same_adapters_fit_eight_large_cards() -> None:
    mixtral = ("model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1", "lora={target_modules: attention}")
    more = ("hardware.zero_stage=3", "training.gradient_checkpointing=true")
    found = verdict(settled("gpu:8xh100-80gb", *mixtral, *more), HERE)
    assert found is not None
    assert found.word == "fits"


@pytest.mark.parametrize("card", [name for name in cards.names() if cards.find(name)])
def test_no_card_is_asked_for_less_by_being_larger(card: str) -> None:
    found = verdict(settled(f"gpu:1x{card}", "lora={}"), HERE)
    assert found is not None
    assert (found.word == "does not fit") == (found.estimate.total > (cards.memory(card) or 0))


def test_parts_are_the_estimates() -> None:
    found = verdict(settled("gpu:1xl4-24gb", "lora={}"), machine.look())
    assert found is not None
    assert sum(getattr(found.estimate, part) for part in PARTS) == found.estimate.total
    assert found.estimate.weights > 16e9
