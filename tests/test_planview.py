"""How a plan looks on a screen and as JSON."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from sysml_run import document, overrides, plan, planview
from sysml_run.machine import Machine
from sysml_run.plan import Plan
from sysml_run.resolve import resolve

MACHINE = Machine(2, 8 * 2**30, "CPU", True, "this processor has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: shown
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
lora: {r: 8}
optimizer: {name: sgd, learning_rate: 5e-5}
training: {num_epochs: 1.5, micro_batch_size: 4, effective_batch_size: 8}
"""


def made(*assignments: str, run: str = "/runs/shown/1") -> Plan:
    return plan.make(resolve(overrides.apply(document.parse(RECIPE, "shown.yaml"), assignments)), MACHINE, run)


def test_text() -> None:
    assert planview.text(made(), commands=False) == (
        "shown: tiny:llama, LoRA r=8, sgd 5e-05\n"
        "  batch  4 rows x 2 accumulation x 1 devices = 8 rows a step, 1.5 epochs\n"
        "  parameters  205.12 k, trained 16.38 k (7.99 %), adapter 0.1 MB\n"
        "  hardware.precision = bf16: this processor has bf16\n"
        "  hardware.threads = 2: 2 cores for 1 process(es)\n"
        "  model.attn_implementation = sdpa: flat in memory beyond 512 tokens\n"
        "  training.gradient_accumulation_steps = 2: effective_batch_size 8 / 4 rows a step over all devices\n"
        "  stages prepare, train, evaluate, merge, package, report\n"
    )


def test_text_of_a_full_fine_tune_by_steps() -> None:
    first, second, third = planview.text(
        made("lora=null", "training.num_epochs=null", "training.max_steps=9"), commands=False
    ).splitlines()[:3]
    assert first == "shown: tiny:llama, full fine-tune, sgd 5e-05"
    assert second.endswith("8 rows a step, 9 steps")
    assert third == "  parameters  205.12 k, all trained"


MIXTRAL = "model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1"


def test_parameters_of_a_model_in_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plans = made(MIXTRAL, "lora={r: 16, target_modules: attention}")
    assert "  parameters  46.70 B, trained 13.63 M (0.03 %), adapter 54.5 MB\n" in planview.text(plans, commands=False)
    assert planview.values(plans, "shown.yaml")["parameters"] == {
        "total": 46_702_792_704, "trainable": 13_631_488, "adapter_bytes": 54_525_952,
    }  # fmt: skip


def test_a_target_that_matches_nothing_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    lines = planview.text(made(MIXTRAL, "lora={target_modules: [gate_proj, w1]}"), commands=False).splitlines()
    assert lines[2:5] == [
        "  parameters  46.70 B, trained 0 (0.00 %), adapter 0.0 MB",
        "  lora.target_modules: no linear layer is called 'gate_proj'",
        "  lora.target_modules: no linear layer is called 'w1'",
    ]


def test_a_model_that_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plans = made("model.base_model=owner/name")
    assert planview.values(plans, "shown.yaml")["parameters"] is None
    assert "parameters" not in planview.text(plans, commands=False)


def test_commands_can_be_typed() -> None:
    plans = made(run="/runs/it's $HOME/1")
    lines = planview.text(plans, commands=True).partition("\n\n")[2].splitlines()
    assert len(lines) == len(plans.launches)
    for line, launch in zip(lines, plans.launches, strict=True):
        words = shlex.split(line)
        assert words[0] == "env"
        assert words[1 : 1 + len(launch.env)] == [f"{name}={value}" for name, value in launch.env.items()]
        assert tuple(words[1 + len(launch.env) :]) == launch.argv


@pytest.mark.parametrize("assignments", [(), ("lora=null",)])
def test_json_holds_what_it_promises(assignments: tuple[str, ...]) -> None:
    shown = planview.values(made(*assignments), "shown.yaml")
    assert json.loads(json.dumps(shown)) == shown
    assert set(shown) >= {
        "recipe", "hardware", "batch", "steps", "parameters", "memory", "launch", "problems", "derived",
    }  # fmt: skip
    assert shown["batch"] == {"micro": 4, "accumulation": 2, "world_size": 1, "effective": 8}
    assert shown["hardware"]["precision"] == "bf16"
    assert all(set(launch) == {"stage", "argv", "env", "files"} for launch in shown["launch"])
    (train,) = [launch for launch in shown["launch"] if launch["stage"] == "train"]
    assert train["argv"][:4] == [
        "/venv/bin/accelerate", "launch", "--config_file", "/runs/shown/1/launch/accelerate.yaml",
    ]  # fmt: skip
    assert "mixed_precision: 'bf16'" in train["files"]["launch/accelerate.yaml"]
