"""How a plan looks on a screen and as JSON."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from sysml_run import document, overrides, plan, planview
from sysml_run.machine import Machine
from sysml_run.plan import Plan
from sysml_run.prepared import Counted
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


REPORT = {"splits": {"train": {"rows": 40, "tokens": {"total": 4000}}}}


def without_needs(text: str) -> list[str]:
    """Without what tests/test_outlook.py and tests/estimate are about."""
    needs = ("  memory", "  time", "  disk", "  later", "          ")
    return [line for line in text.splitlines() if not line.startswith(needs)]


def test_text() -> None:
    assert "\n".join([*without_needs(planview.text(made(), commands=False)), ""]) == (
        "shown: tiny:llama, LoRA r=8, sgd 5e-05\n"
        "  batch  4 rows x 2 accumulation x 1 devices = 8 rows a step, 1.5 epochs\n"
        "  parameters  205.12 k, trained 16.38 k (7.99 %), adapter 0.1 MB\n"
        "  hardware.precision = bf16: this processor has bf16\n"
        "  hardware.threads = 2: 2 cores for 1 process(es)\n"
        "  model.attn_implementation = sdpa: flat in memory beyond 512 tokens\n"
        "  training.gradient_accumulation_steps = 2: effective_batch_size 8 / 4 rows a step over all devices\n"
        "  stages prepare, train, evaluate, merge, package, report\n"
    )


def test_what_it_needs_is_said() -> None:
    lines = planview.text(made(), Counted({"train": 40}, REPORT), commands=False).splitlines()
    starts = ("  memory  fits: ", "          weights ", "  time    ", "  disk    ", "  later   merge takes ")
    assert all(any(line.startswith(start) for line in lines) for start in starts)
    assert any("operations for the 800 tokens of a step; a processor's rate" in line for line in lines)
    values = planview.values(made(), "shown.yaml", Counted({"train": 40}, REPORT))
    assert values["steps"]["total"] == 8
    assert values["time"]["tokens_per_step"] == 800
    assert values["memory"]["fits"] is True
    assert values["disk"]["run_gb"] > 0


def test_a_model_that_is_not_known_has_no_memory_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plans = made("model.base_model=owner/name")
    values = planview.values(plans, "shown.yaml")
    assert (values["memory"], values["time"], values["disk"]) == (None, None, None)
    assert "  memory  not known: the model's sizes are not at hand" in planview.text(plans, commands=False)


def test_what_was_defaulted() -> None:
    plans = made()
    left = planview.defaulted(plans)
    assert {"lora.alpha", "optimizer.weight_decay", "seed"} <= set(left)
    assert not {"lora.r", "name", "hardware.threads", "training.gradient_accumulation_steps"} & set(left)
    text = planview.text(plans, commands=True)
    assert f'  by default ({len(left)} keys)  description=""  seed=42  ' in text
    assert "lora.target_modules=" in text
    block = text.partition("\n\n")[0].partition("  by default")[2]
    assert all(len(line) <= 120 for line in block.splitlines())
    assert all(name in block for name in left)
    assert planview.values(plans, "shown.yaml")["defaulted"] == left


def test_stages_with_what_goes_in_and_comes_out() -> None:
    blocks = planview.text(made(), commands=True).split("\n\n")[1:]
    assert [block.partition(":")[0] for block in blocks] == [launch.stage for launch in made().launches]
    train = blocks[1].splitlines()
    assert train[:4] == [
        "train: fine-tune",
        "  in   tiny:llama, data",
        "  out  model, checkpoints, metrics.jsonl",
        "  with launch/accelerate.yaml",
    ]
    assert blocks[0].splitlines()[1] == "  in   /data/rows.jsonl, tiny:llama"


def test_paths_are_shown_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = planview.text(made(f"datasets.0.path={tmp_path}/rows/one.jsonl"), commands=True)
    assert "  in   rows/one.jsonl, tiny:llama\n" in text


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
    assert "parameters" not in "".join(without_needs(planview.text(plans, commands=False)))


def test_commands_can_be_typed() -> None:
    plans = made(run="/runs/it's $HOME/1")
    lines = [line for line in planview.text(plans, commands=True).splitlines() if line.startswith("env ")]
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
        "recipe", "hardware", "batch", "steps", "parameters", "memory", "time", "disk", "launch", "problems", "derived",
        "defaulted",
    }  # fmt: skip
    assert shown["batch"] == {"micro": 4, "accumulation": 2, "world_size": 1, "effective": 8}
    assert shown["hardware"]["precision"] == "bf16"
    assert all(set(launch) == {"stage", "inputs", "outputs", "argv", "env", "files"} for launch in shown["launch"])
    (train,) = [launch for launch in shown["launch"] if launch["stage"] == "train"]
    assert train["argv"][:4] == [
        "/venv/bin/accelerate", "launch", "--config_file", "/runs/shown/1/launch/accelerate.yaml",
    ]  # fmt: skip
    assert "mixed_precision: 'bf16'" in train["files"]["launch/accelerate.yaml"]
