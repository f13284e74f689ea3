"""Runs through `sysml-run` itself on XLA devices: virtual ones made of the processor, or a TPU's with --on-tpu."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sysml_run import slices

ROOT = Path(__file__).parents[2]
RECIPE = """\
version: 1
name: tiny
model: {base_model: "tiny:llama", dtype: float32}
datasets:
  - {path: rows.jsonl, type: prompt_completion}
split: {validation: 20}
prompt: {sequence_len: 64, padding: max_length}
optimizer: {name: adamw, learning_rate: 2e-3, lr_scheduler: cosine, warmup_ratio: 0.1, min_lr_ratio: 0.1}
training: {max_steps: 8, micro_batch_size: 1, logging_steps: 1, save_steps: 4}
evaluation: {every_steps: 4}
"""
LORA = "lora={r: 4, alpha: 8, dropout: %s, target_modules: all-linear}"
CHECKPOINTED = "training.gradient_checkpointing=true"
METHODS: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "lora": (LORA % 0.0, CHECKPOINTED),
    "dropout": (LORA % 0.2, "prompt.padding=bucketed", "evaluation.every_steps=null"),
    "mixtral": (
        "model.base_model=tiny:mixtral",
        "training.gradient_accumulation_steps=2",
        "training.max_grad_norm=0.5",
    ),
    "packed": (
        "prompt.packing=true",
        "training.max_steps=3",
        "training.save_steps=null",
        "evaluation.every_steps=null",
    ),
    "bf16": ("training.max_steps=5", "training.save_steps=null", "hardware.precision=bf16"),
    "generalist": (
        "model={base_model: 'tiny:mixtral', dtype: bfloat16}",
        "lora={r: 4, alpha: 8, dropout: 0.0, target_modules: attention}",
        CHECKPOINTED,
        "training.gradient_accumulation_steps=2",
        "training.max_steps=4",
        "training.save_steps=null",
        "evaluation.every_steps=null",
    ),
    "lion": ("optimizer={name: lion, learning_rate: 3e-4}", "evaluation={every_steps: 4, best: {}}"),
}

BF16 = ("bf16", "generalist")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on-tpu", metavar="TOPOLOGY", help="run on this machine's TPU slice, such as v5e-8")


@pytest.fixture(scope="session")
def topology(request: pytest.FixtureRequest) -> str | None:
    """The slice of this machine, where it is to be trained on."""
    return request.config.getoption("--on-tpu")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def env(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """No hub, a cache of our own, and bf16 asked for in a way that must not be heeded."""
    cache = str(tmp_path_factory.mktemp("cache"))
    path = {"XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "runner")}
    return {**os.environ, **path, "XLA_USE_BF16": "1", "XLA_DOWNCAST_BF16": "1"}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and 64 rows to train on: whole batches in every epoch."""
    folder = tmp_path_factory.mktemp("project")
    words = ["calm", "odd", "grave"]
    rows = ({"prompt": f"finding {n}: host {n * 7}", "completion": f"it is {words[n % 3]}"} for n in range(84))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sysml_run(project: Path, env: Mapping[str, str]) -> Run:
    """Run the command in the project folder; fails unless it exits as expected. `devices` are virtual ones."""

    def run(*arguments: str, devices: int = 0, code: int = 0) -> subprocess.CompletedProcess[str]:
        virtual = {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)} if devices else {}
        command = [sys.executable, "-m", "sysml_run.cli", *arguments]
        done = subprocess.run(command, cwd=project, env={**env, **virtual}, capture_output=True, text=True, timeout=900)
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


Train = Callable[[str, int], Path]


@pytest.fixture(scope="session")
def train(project: Path, sysml_run: Run, topology: str | None) -> Train:
    """Train a method once on so many virtual devices (0: plain torch on the processor), and give the run directory."""
    done: dict[tuple[str, int], Path] = {}

    def run(method: str, devices: int) -> Path:
        key = (method, devices)
        if key not in done:
            folder, precision = project / f"{method}-{devices}", "bf16" if method in BF16 else "fp32"
            until = () if method == "lora" and devices else ("--only", "train")  # one process prepares and trains
            written = METHODS[method]
            if devices:
                real = () if topology is None else (f"hardware.topology={topology}",)
                hardware = (f"hardware={{accelerator: tpu, topology: v3-8, precision: {precision}}}", *real)
            else:
                hardware = (f"hardware={{accelerator: cpu, precision: {precision}, threads: 1}}",)
                rows = slices.find(topology or "v3-8").devices
                written = (*written, f"training.micro_batch_size={rows}")
            changes = [word for change in (*hardware, *written) for word in ("--set", change)]
            place = 0 if topology else devices
            sysml_run("tiny.yaml", *until, *changes, "--runs", str(folder), devices=place)
            (done[key],) = (folder / "tiny").iterdir()
        return done[key]

    return run


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figures(run: Path) -> dict[str, list[float]]:
    names = ("loss", "eval_loss", "learning_rate")
    return {name: [line[name] for line in lines(run) if line.get(name) is not None] for name in names}


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "records/train.json").read_text()))
