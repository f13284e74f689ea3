"""Rules: each fires on what it is for, at its key, and on nothing else; what is not built stops a run, not a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysml_run import document, overrides, rules
from sysml_run.errors import Problem
from sysml_run.resolve import resolve
from sysml_run.unbuilt import UNBUILT

MINIMAL = """\
version: 1
name: minimal
model: {base_model: tiny:llama}
datasets:
  - path: rows.jsonl
    type: messages
optimizer: {name: adamw, learning_rate: 2e-4}
training: {num_epochs: 1}
"""


@pytest.fixture
def check(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("{}\n")

    def run(*assignments: str, running: bool = False) -> list[Problem]:
        base = document.parse(MINIMAL, str(tmp_path / "r.yaml"))
        read = overrides.apply(base, assignments)
        return rules.check(resolve(read).recipe, read, running=running)

    return run


def test_a_plain_recipe_has_no_findings(check) -> None:
    assert check() == check(running=True) == []


CONTRADICTIONS = {
    "length": (["training.max_steps=5"], "training.max_steps"),
    "no length": (["training.num_epochs=null"], "training"),
    "warmup": (["optimizer.warmup_ratio=0.1", "optimizer.warmup_steps=5"], "optimizer.warmup_steps"),
    "batch": (
        ["training.effective_batch_size=8", "training.gradient_accumulation_steps=8"],
        "training.effective_batch_size",
    ),
    "batch divides": (
        ["training.effective_batch_size=9", "training.micro_batch_size=2"],
        "training.effective_batch_size",
    ),
    "min_lr": (["optimizer.min_lr_ratio=0.1", "optimizer.lr_scheduler=constant"], "optimizer.min_lr_ratio"),
    "cycles": (["optimizer.num_cycles=2"], "optimizer.num_cycles"),
    "best": (["evaluation.best={}"], "evaluation.best"),
    "early stopping": (["evaluation.early_stopping={}"], "evaluation.early_stopping"),
    "best is saved": (
        ["evaluation={best: {}, every_steps: 4}", "training.save_steps=6"],
        "training.save_steps",
    ),
    "metrics": (["evaluation.metrics=[json_valid]"], "evaluation.metrics"),
    "shares": (["split={validation: 0.7, test: 0.4}"], "split"),
    "part of a row": (["split.test=1.5"], "split.test"),
    "validation": (["split.validation=0"], "split.validation"),
    "flash attention": (["model.attn_implementation=flash_attention_2"], "model.attn_implementation"),
    "revision": (["model.base_model=tiny:llama", "model.revision=abc"], "model.revision"),
    "fp16": (["hardware={accelerator: cpu, precision: fp16}"], "hardware.precision"),
    "template": (["prompt.template=vicuna"], "prompt.template"),
    "map": (["datasets.0.type=rows"], "datasets.0.map"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
@pytest.mark.parametrize("running", [True, False])
def test_contradictions_are_errors(name: str, running: bool, check) -> None:
    assignments, pointer = CONTRADICTIONS[name]
    (problem,) = check(*assignments, running=running)
    assert (problem.pointer, problem.severity) == (pointer, "error")


@pytest.mark.parametrize(
    "assignments",
    [
        ["training.num_epochs=null", "training.max_steps=5"],
        ["optimizer.warmup_steps=0"],
        ["training.effective_batch_size=8", "training.micro_batch_size=4"],
        ["training.gradient_accumulation_steps=3"],
        ["optimizer.min_lr_ratio=0.1"],
        ["optimizer={name: sgd, learning_rate: 1, num_cycles: 2, lr_scheduler: cosine_with_restarts}"],
        ["evaluation={best: {}, early_stopping: {}, every_steps: 4, generate: {}, metrics: [json_valid]}"],
        ["evaluation={best: {}, every_steps: 4}", "training.save_steps=8"],
        ["split={validation: 200, test: 0.9}"],
        ["prompt.template='{{ messages }}'"],
        ["prompt.template='{% for m in messages %}{% endfor %}'"],
        ["datasets.0={path: rows.jsonl, type: rows, map: {prompt: a, completion: b}}"],
    ],
)
def test_what_agrees_is_let_through(assignments: list[str], check, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(*assignments, running=True) == []


def test_the_world_counts_in_the_batch(check) -> None:
    gpu = "hardware={accelerator: gpu, devices: 4, nodes: 2}"
    found = check(gpu, "training.effective_batch_size=12")
    assert [problem.hint for problem in found if problem.severity == "error"] == ["write 16"]
    tpu = "hardware={accelerator: tpu, topology: v3-8}"
    assert all(problem.severity == "warning" for problem in check(tpu, "training.effective_batch_size=12"))


def test_data_that_is_not_here(check, tmp_path: Path) -> None:
    (warning,) = check(f"datasets.0.path={tmp_path}/*.csv")
    (error,) = check(f"datasets.0.path={tmp_path}/*.csv", running=True)
    assert (warning.severity, error.severity) == ("warning", "error")
    assert error.message == f"there is nothing at {tmp_path}/*.csv"
    assert check(f"datasets.0.path={tmp_path}/*.jsonl", running=True) == []
    assert check(f"datasets.0.path={tmp_path}", running=True) == []


def test_remote_code_is_a_warning(check) -> None:
    (problem,) = check("model.trust_remote_code=true", running=True)
    assert (problem.pointer, problem.severity) == ("model.trust_remote_code", "warning")


ASKED = {
    "hardware.accelerator": "hardware={accelerator: gpu, devices: 8, zero_stage: 3, offload: {optimizer: cpu}}",
    "hardware.devices": "hardware={accelerator: cpu, devices: 2}",
    "hardware.zero_stage": "hardware={accelerator: cpu, zero_stage: 0}",
    "hardware.offload.optimizer": "hardware={accelerator: cpu, offload: {optimizer: cpu}}",
    "hardware.offload.parameters": "hardware={accelerator: cpu, offload: {parameters: nvme}}",
    "quantization.load": "quantization.load=int8",
    "quantization.export.*.method": "quantization.export=[{method: gguf}]",
    "distillation": "distillation.teacher=tiny:llama",
    "search": "search={}",
    "tracking.*": "tracking=[mlflow]",
    "prompt.template": "prompt.template=alpaca",
    "prompt.packing": "prompt.packing=true",
    "prompt.padding": "prompt.padding=bucketed",
    "datasets.*.type": "datasets.0.type=sharegpt",
    "datasets.*.path": "datasets.0.path=hub:owner/name",
    "datasets.*.weight": "datasets.0.weight=0.5",
}


def test_every_row_of_the_table_is_asked_for() -> None:
    assert list(ASKED) == [row.pointer for row in UNBUILT]


@pytest.mark.parametrize("pointer", ASKED)
def test_what_is_not_built_warns_in_a_check_and_stops_a_run(pointer: str, check) -> None:
    (warning,) = check(ASKED[pointer])
    (error,) = check(ASKED[pointer], running=True)
    assert (warning.severity, error.severity) == ("warning", "error")
    assert error.pointer == pointer.replace("*", "0")
    assert error.message.endswith("is not built in this version")
    assert error.hint
