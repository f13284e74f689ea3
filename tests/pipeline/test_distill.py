"""A model that learns from a teacher: its stage, the cache, both parts of the loss, and the ways through training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from .conftest import read
from .test_resume import kill_tree, lines, only, start, wait_for, weights

pytestmark = pytest.mark.slow

ALPHA, TEMPERATURE = 0.7, 1.5
SECTION = f"distillation={{teacher: 'tiny:qwen2', alpha: {ALPHA}, temperature: {TEMPERATURE}, top_k: 8}}"
PLAIN = ("--set", "lora.dropout=0.0", "--set", "evaluation.every_steps=null", "--until", "train")


def train(project: Path, sysml_run: Any, name: str, *more: str) -> Path:
    """The run directory of a run up to training, under a name of its own."""
    sysml_run("tiny.yaml", "--runs", name, "--set", SECTION, *PLAIN, *more)
    run = only(project / name / "tiny")
    assert run
    return run


@pytest.fixture(scope="module")
def distilled(project: Path, sysml_run: Any) -> Path:
    return train(project, sysml_run, "distilled")


def test_a_whole_run(project: Path, sysml_run: Any) -> None:
    sysml_run("tiny.yaml", "--runs", "whole-distilled", "--set", SECTION)
    run = only(project / "whole-distilled/tiny")
    assert run
    launched = [launch["stage"] for launch in read(run / "plan.json")["launch"]]
    assert launched[:3] == ["prepare", "teacher", "train"]
    assert read(run / "status.json")["state"] == "done"
    record = read(run / "records/teacher.json")
    assert (record["base_model"], record["top_k"], record["temperature"]) == ("tiny:qwen2", 8, TEMPERATURE)
    facts = read(run / "records/train.json")["step0"]
    wanted = {"teacher": "tiny:qwen2", "alpha": ALPHA, "temperature": TEMPERATURE, "top_k": 8}
    assert {name: facts[name] for name in wanted} == wanted
    assert facts["teacher_positions"] == record["positions"]
    assert "Teacher positions" in (run / "report.html").read_text()


def test_both_parts_of_the_loss_are_logged(distilled: Path) -> None:
    logged = lines(distilled)
    assert [line["step"] for line in logged] == list(range(1, 9))
    for line in logged:
        mixed = ALPHA * TEMPERATURE**2 * line["kl"] + (1 - ALPHA) * line["cross_entropy"]
        assert line["loss"] == pytest.approx(mixed, rel=1e-4)
    assert logged[0]["kl"] > 0


def test_accumulation_is_one_large_batch(distilled: Path, project: Path, sysml_run: Any) -> None:
    large = ("training.micro_batch_size=4", "training.gradient_accumulation_steps=1", "training.logging_steps=2")
    run = train(project, sysml_run, "large", *(part for each in large for part in ("--set", each)))
    parts = lines(distilled)
    for line in lines(run)[2:]:  # the first two are of one step each
        for name in ("loss", "kl", "cross_entropy"):
            pair = [part[name] for part in parts if part["step"] in (line["step"] - 1, line["step"])]
            assert line[name] == pytest.approx(sum(pair) / 2, rel=1e-4), name
    theirs = load_file(run / "model/adapter_model.safetensors")
    for name, tensor in load_file(distilled / "model/adapter_model.safetensors").items():
        assert (tensor - theirs[name]).abs().max() < 1e-3, name


def test_the_teacher_is_run_once(distilled: Path, project: Path, sysml_run: Any) -> None:
    run = train(project, sysml_run, "again", "--set", "distillation.alpha=1")
    assert read(run / "records/teacher.json")["cache"] == "hit"
    assert read(run / "data/teacher.json") == read(distilled / "data/teacher.json")
    assert weights(run) != weights(distilled)


def test_without_weight_it_is_the_run_without_a_teacher(project: Path, sysml_run: Any) -> None:
    taught = train(project, sysml_run, "weightless", "--set", "distillation.alpha=0")
    sysml_run("tiny.yaml", "--runs", "untaught", *PLAIN)
    untaught = only(project / "untaught/tiny")
    assert untaught
    assert weights(taught) == weights(untaught)


@pytest.mark.parametrize(
    "assignments",
    [
        ("lora=null",),
        ("prompt.packing=true", "prompt.sequence_len=128"),
        ("hardware.precision=bf16", "prompt.padding=bucketed"),
        ("hardware.devices=2",),
        ("hardware.devices=2", "hardware.zero_stage=3", "lora=null"),
    ],
    ids=["full", "packed", "bf16", "two processes", "ZeRO-3"],
)
def test_ways_through_training(assignments: tuple[str, ...], project: Path, sysml_run: Any) -> None:
    name = f"way-{'-'.join(assignments).replace('.', '-')}"
    run = train(project, sysml_run, name, *(part for each in assignments for part in ("--set", each)))
    logged = lines(run)
    assert len(logged) == 8
    for line in logged:
        mixed = ALPHA * TEMPERATURE**2 * line["kl"] + (1 - ALPHA) * line["cross_entropy"]
        assert line["loss"] == pytest.approx(mixed, rel=1e-3)
    assert logged[-1]["cross_entropy"] < logged[0]["cross_entropy"]


def test_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(
    project: Path, env: Mapping[str, str], sysml_run: Any
) -> None:
    longer = (
        "--set",
        "training.max_steps=40",
        "--set",
        "training.save_steps=10",
        "--set",
        "evaluation.every_steps=null",
    )
    arguments = ("tiny.yaml", "--set", SECTION, *longer, "--until", "train")
    sysml_run(*arguments, "--runs", "unkilled")
    killed = start(project, env, *arguments, "--runs", "killed-distilled")

    def past_a_checkpoint() -> bool:
        run = only(project / "killed-distilled/tiny")
        return bool(run and (run / "checkpoints/checkpoint-10").is_dir() and len(lines(run)) > 12)

    wait_for(past_a_checkpoint, killed, 300)
    kill_tree(killed)
    run, whole = only(project / "killed-distilled/tiny"), only(project / "unkilled/tiny")
    assert run
    assert whole
    assert not (run / "model").exists()
    asked = (run / "records/teacher.json").stat().st_mtime_ns
    sysml_run(*arguments, "--runs", "killed-distilled", "--resume")
    assert weights(run) == weights(whole)
    assert (run / "records/teacher.json").stat().st_mtime_ns == asked
    assert read(run / "records/train.json")["resumed_from"].startswith("checkpoint-")
    kept = [{name: line[name] for name in ("step", "loss", "kl", "cross_entropy")} for line in lines(run)]
    assert kept == [{name: line[name] for name in kept[0]} for line in lines(whole)]


def test_train_by_itself_asks_the_teacher_first(project: Path, sysml_run: Any) -> None:
    """As a job on a cluster does, whose train command is all that runs there."""
    run = train(project, sysml_run, "by-itself", "--only", "train")
    assert [read(run / f"records/{stage}.json")["seconds"] >= 0 for stage in ("prepare", "teacher", "train")]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    started = [event["stage"] for event in events if event["event"] == "stage_started"]
    assert started == ["prepare", "teacher", "train"]


def test_predictions_that_are_gone_are_said_to_be(distilled: Path, project: Path, sysml_run: Any) -> None:
    run = train(project, sysml_run, "gone", "--set", "distillation.top_k=3", "--until", "teacher")
    folder = Path(read(run / "data/teacher.json")["path"])
    (folder / "ids.npy").unlink()
    again = ("--runs", "gone", "--set", SECTION, "--set", "distillation.top_k=3", *PLAIN, "--resume", str(run))
    said = sysml_run("tiny.yaml", *again, code=1).stderr
    assert f"the teacher's predictions in {folder} are gone" in said
    assert f"delete {run / 'records/teacher.json'} and resume the run" in said
    (run / "records/teacher.json").unlink()
    sysml_run("tiny.yaml", *again)
    assert len(lines(run)) == 8
