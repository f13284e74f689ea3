"""What a backend writes, read by the real `accelerate launch`: its configuration loader, parser and launcher."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from sysml_run import document, overrides, plan
from sysml_run.backends import BACKENDS
from sysml_run.backends.base import PLACE, Launch
from sysml_run.machine import Machine
from sysml_run.resolve import resolve

RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2}
"""
VARIANTS = {
    "cpu bf16": ("hardware={accelerator: cpu, precision: bf16, threads: 3}", "bf16"),
    "cpu fp32": ("hardware={accelerator: cpu, precision: fp32, threads: 3}", "no"),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory whose name needs quoting in a shell."""
    return tmp_path / "it's a run"


def launch(run: Path, assignment: str) -> Launch:
    """The training launch, its files written where it looks for them."""
    machine = Machine(4, 2**34, "CPU", True, "has bf16", sys.executable)
    made = plan.make(resolve(overrides.apply(document.parse(RECIPE, "r.yaml"), [assignment])), machine, str(run))
    (train,) = [each for each in made.launches if each.stage == "train"]
    for name, text in train.files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    return train


def arguments(made: Launch) -> Any:
    program, command, *rest = made.argv
    assert Path(program).is_file()
    assert command == "launch"
    return launch_command_parser().parse_args(rest)


CARDS = {
    "ddp one card": ("hardware={accelerator: gpu, zero_stage: null}", (DistributedType.NO, 1, 1, "bf16", False)),
    "ddp four cards": (
        "hardware={accelerator: gpu, devices: 2, nodes: 2, zero_stage: null, precision: fp32}",
        (DistributedType.MULTI_GPU, 4, 2, "no", True),
    ),
}


SLICES = {
    "xla_fsdp one host": "{accelerator: tpu, topology: v3-8}",
    "xla_fsdp 64 hosts": "{accelerator: tpu, topology: v6e-256, precision: fp32}",
}


def test_every_backend_is_here() -> None:
    elsewhere = {"deepspeed"}  # test_deepspeed.py
    assert {name.split()[0] for name in (*VARIANTS, *CARDS, *SLICES)} | elsewhere == set(BACKENDS)


@pytest.mark.parametrize("name", SLICES)
def test_a_slice_is_one_process_that_accelerate_hands_over_untouched(name: str, run: Path) -> None:
    """Neither its own bf16, which turns fp32 weights to bf16 on a TPU, nor its launcher of a process for each chip."""
    made = launch(run, f"hardware={SLICES[name]}")
    read, defaults, _ = _validate_launch_command(arguments(made))
    assert defaults.distributed_type == DistributedType.NO
    assert (read.num_processes, read.num_machines, read.mixed_precision) == (1, 1, "no")
    assert not any((read.multi_gpu, read.use_deepspeed, read.use_fsdp, read.tpu, read.use_cpu, read.downcast_bf16))
    command, env = prepare_simple_launcher_cmd_env(read)
    assert command == [sys.executable, "-m", "sysml_run.worker", "train", str(run)]
    assert (env["ACCELERATE_USE_CPU"], env["ACCELERATE_MIXED_PRECISION"]) == ("False", "no")
    assert not any(name.startswith("XLA_") for name in set(env) - set(os.environ))
    assert {made.env[name] for name in ("XLA_USE_BF16", "XLA_DOWNCAST_BF16")} == {"0"}
    assert (made.env["PJRT_DEVICE"], made.env["USE_TORCH_XLA"]) == ("TPU", "1")


@pytest.mark.parametrize("name", CARDS)
def test_cards_without_deepspeed(name: str, run: Path) -> None:
    assignment, expected = CARDS[name]
    made = launch(run, assignment)
    words = [dict.fromkeys(PLACE.values(), "1").get(word, word) for word in made.argv[2:]]
    read, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    kind = (defaults.distributed_type, read.num_processes, read.num_machines, read.mixed_precision, read.multi_gpu)
    assert kind == expected
    assert not any((read.use_deepspeed, read.use_fsdp, read.tpu, read.use_cpu))
    assert int(read.machine_rank) == (1 if expected[2] > 1 else 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_configuration_has_no_key_that_accelerate_does_not_know(name: str, run: Path) -> None:
    made = launch(run, VARIANTS[name][0])
    (text,) = made.files.values()
    written = yaml.safe_load(text)
    assert set(written) <= set(ClusterConfig.__dataclass_fields__)
    read = load_config_from_file(made.argv[made.argv.index("--config_file") + 1])
    assert isinstance(read, ClusterConfig)
    assert {key: value for key, value in read.to_dict().items() if key in written} == written


@pytest.mark.parametrize("name", VARIANTS)
def test_what_accelerate_makes_of_it(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assignment, precision = VARIANTS[name]
    made = launch(run, assignment)
    for key, value in made.env.items():
        monkeypatch.setenv(key, value)
    read, defaults, _ = _validate_launch_command(arguments(made))
    assert defaults.distributed_type == DistributedType.NO
    assert (read.num_processes, read.num_machines, read.mixed_precision) == (1, 1, precision)
    assert not any((read.multi_gpu, read.use_deepspeed, read.use_fsdp, read.tpu))
    command, env = prepare_simple_launcher_cmd_env(read)
    assert command == [sys.executable, "-m", "sysml_run.worker", "train", str(run)]
    assert (env["ACCELERATE_USE_CPU"], env["ACCELERATE_MIXED_PRECISION"]) == ("True", precision)
    assert env["OMP_NUM_THREADS"] == "3"


def test_a_key_that_accelerate_does_not_know_would_be_seen(run: Path) -> None:
    made = launch(run, VARIANTS["cpu fp32"][0])
    config = run / "launch/accelerate.yaml"
    config.write_text(config.read_text() + "main_proces_port: 0\n")
    with pytest.raises(ValueError, match=r"unknown keys.*main_proces_port"):
        _validate_launch_command(arguments(made))


def test_a_flag_that_accelerate_does_not_know_would_be_seen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = launch(run, VARIANTS["cpu fp32"][0])
    with pytest.raises(SystemExit):
        launch_command_parser().parse_args(["--mixed_precison", "bf16", *made.argv[2:]])
    assert "--mixed_precison" in capsys.readouterr().err
