"""DeepSpeed ZeRO with two gloo processes: the losses, weights and checkpoints of the run that one process makes."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from .test_resume import lines, only, start, wait_for, weights

pytestmark = pytest.mark.slow

SMOKE = (
    "tiny.yaml",
    "--smoke",
    "--until",
    "train",
    "--set",
    "lora.dropout=0.0",
    "--set",
    "optimizer.learning_rate=2e-3",
)
METHODS = {
    "lora": (),
    "full": ("--set", "lora=null"),
    "mixtral": ("--set", "lora=null", "--set", "model.base_model=tiny:mixtral"),
}
TOLERANCE = 1e-3  # measured in fp32: losses 2e-6 apart, weights 1e-5 where Adam divides two gradients near zero
LOAD = """
import json, sys
from transformers import AutoModelForCausalLM
for folder in sys.argv[1:]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    print(json.dumps([str(model.dtype), *(sorted(info[name]) for name in ("missing_keys", "unexpected_keys"))]))
"""


def several(stage: int, devices: int = 2) -> tuple[str, ...]:
    named = {"accelerator": "cpu", "devices": devices, "zero_stage": stage}
    return tuple(word for name, value in named.items() for word in ("--set", f"hardware.{name}={value}"))


Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(project: Path, sysml_run: Any) -> Train:
    """Train once with these arguments, and give the run directory."""
    done: dict[tuple[str, ...], Path] = {}

    def run(method: str, *more: str) -> Path:
        key = (method, *more)
        if key not in done:
            folder = project / f"zero-{len(done)}"
            sysml_run(*SMOKE, *METHODS[method], *more, "--runs", str(folder))
            (done[key],) = (folder / "tiny-smoke").iterdir()
        return done[key]

    return run


ALONE = ("--set", "training.micro_batch_size=4")  # the rows that two processes with micro batches of 2 see in a step


def losses(run: Path) -> dict[str, list[float]]:
    return {
        name: [line[name] for line in lines(run) if line.get(name) is not None]
        for name in ("loss", "eval_loss", "learning_rate")
    }


def compared(one: Path, other: Path) -> None:
    ours, theirs = losses(one), losses(other)
    assert [len(values) for values in theirs.values()] == [4, 2, 4]
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, abs=TOLERANCE), name


def step0(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "records/train.json").read_text())["step0"])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_learn_what_one_does(train: Train, method: str, stage: int) -> None:
    alone, run = train(method, *ALONE), train(method, *several(stage))
    compared(run, alone)
    facts = step0(run)
    assert (facts["world_size"], facts["zero_stage"], facts["batch_triple"]) == (2, stage, [2, 2, 8])
    assert facts["optimizer"] == step0(alone)["optimizer"] == "torch.optim.adamw.AdamW"
    assert (facts["wrapper"] is None) == (stage == 0)
    record = json.loads((run / "records/train.json").read_text())
    assert record["scored_positions"] < 0.6 * record["tokens"], "no logits where nothing is predicted"
    for name in ("trainable_parameters", "optimizer_parameters", "total_parameters", "rows"):
        assert facts[name] == step0(alone)[name], name
    (ours,), (theirs,) = ([*(one / "model").glob("*.safetensors")] for one in (run, alone))
    mine, expected = load_file(ours), load_file(theirs)
    assert mine.keys() == expected.keys()
    assert max(float((mine[name] - expected[name]).abs().max()) for name in mine) < TOLERANCE


def test_experts_are_sharded_too(train: Train) -> None:
    """tiny:mixtral has no router loss in training; it is a mean over a micro batch, which differs with its size."""
    compared(train("mixtral", *several(3)), train("mixtral", *ALONE))


def test_plain_transformers_loads_what_was_gathered(train: Train, env: Mapping[str, str]) -> None:
    models = [str(train(method, *several(3)) / "model") for method in ("full", "mixtral")]
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", LOAD, *models], env=bare, capture_output=True, text=True)
    assert done.stdout.splitlines() == ['["torch.float32", [], []]'] * 2, done.stderr


def test_arithmetic_in_bf16_is_that_of_one_process(train: Train) -> None:
    bf16 = ("--set", "hardware.precision=bf16")
    run = train("full", *bf16, *several(2))
    compared(run, train("full", *bf16, *ALONE))
    assert step0(run)["precision"] == "bf16"


def test_other_stages_follow_on_one_process(train: Train, sysml_run: Any) -> None:
    run = train("lora", *several(2))
    arguments = [word for word in SMOKE if word not in ("--until", "train")]
    stages = ("--only", "merge,package")
    sysml_run(*arguments, *stages, *several(2), "--runs", str(run.parents[1]), "--resume", str(run))
    assert (run / "package/model.safetensors").is_file()


LONG = ("--set", "training.max_steps=24", "--set", "training.save_steps=10", "--set", "evaluation.every_steps=null")


def ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The training processes that the launcher of this command has started."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [each for each in below if "sysml_run.worker" in each.cmdline() and "launch" not in each.cmdline()]


def asked(way: str, process: subprocess.Popen[str]) -> None:
    """SIGTERM as people and schedulers send it: to the command, to one rank, or to every process several times."""
    everything = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    chosen = {"command": everything[-1:], "rank": ranks(process)[-1:], "everything": everything * 3}[way]
    for each in chosen:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("way", ["command", "rank", "everything"])
def test_asked_to_stop_all_save_the_same_step_and_go_on_as_if_they_had_not(
    way: str, project: Path, env: Mapping[str, str], train: Train, sysml_run: Any
) -> None:
    """Exit code 130, and the same command goes on."""
    runs = project / f"zero-stopped-{way}"
    arguments = (*SMOKE, *LONG, *several(3), "--runs", str(runs))
    process = start(project, env, *arguments)

    def past_the_first_epoch() -> bool:
        run = only(runs / "tiny-smoke")
        return bool(run and len(lines(run)) > 7)

    wait_for(past_the_first_epoch, process)
    started = ranks(process)
    asked(way, process)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    psutil.wait_procs(started, timeout=30)
    assert not any(map(alive, started))
    run = only(runs / "tiny-smoke")
    assert run
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    step = len(lines(run))
    assert (run / f"checkpoints/checkpoint-{step}/latest").is_file()
    assert not list(run.rglob(".partial-*"))
    if way == "command":
        other = sysml_run(*SMOKE, *LONG, *several(3, 1), "--runs", str(runs), "--resume", str(run), code=2)
        assert "the recipe has changed" in other.stderr
        assert "hardware.devices" in other.stderr
        return
    whole = train("lora", *LONG, *several(3))
    sysml_run(*arguments)
    assert json.loads((run / "records/train.json").read_text())["resumed_from"] == f"checkpoint-{step}"
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(whole)]
    assert weights(run) == weights(whole)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_nothing_stays_behind_a_launcher_that_is_killed(project: Path, env: Mapping[str, str]) -> None:
    runs = project / "zero-killed"
    process = start(project, env, *SMOKE, *LONG, *several(0), "--runs", str(runs))
    wait_for(lambda: (run := only(runs / "tiny-smoke")) and lines(run), process)
    started = ranks(process)
    assert len(started) == 2
    (launcher,) = {rank.parent() for rank in started}
    launcher.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "train was killed, most likely for lack of memory" in errors
    psutil.wait_procs(started, timeout=30)
    assert not any(map(alive, started))
