"""A run that is killed or stopped ends in the weights of the run that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

LONG = ("--set", "training.max_steps=60", "--set", "training.save_steps=10", "--set", "evaluation.every_steps=null")


def start(project: Path, env: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sysml_run.cli", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def kill_tree(process: subprocess.Popen[str]) -> None:
    """kill -9 for the command and everything it started."""
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        each.kill()
    process.communicate()


def only(folder: Path) -> Path | None:
    found = list(folder.glob("*")) if folder.is_dir() else []
    return found[0] if found else None


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "model").glob("*.safetensors")}


def test_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(
    project: Path, env: Mapping[str, str], sysml_run: Any
) -> None:
    sysml_run("tiny.yaml", "--runs", "whole", "--until", "train", *LONG)
    killed = start(project, env, "tiny.yaml", "--runs", "killed", "--until", "train", *LONG)

    def past_a_checkpoint() -> bool:
        run = only(project / "killed/tiny")
        return bool(run and (run / "checkpoints/checkpoint-20").is_dir() and len(lines(run)) > 22)

    wait_for(past_a_checkpoint, killed)
    kill_tree(killed)
    run = only(project / "killed/tiny")
    assert run
    assert not (run / "model").exists()
    made = len(lines(run))
    assert 22 < made < 60
    sysml_run("tiny.yaml", "--runs", "killed", "--until", "train", "--resume", *LONG)
    whole = only(project / "whole/tiny")
    assert whole
    assert weights(run) == weights(whole)
    assert [line["step"] for line in lines(run)] == list(range(1, 61))
    assert json.loads((run / "records/train.json").read_text())["resumed_from"].startswith("checkpoint-")


def lines(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    text = file.read_text() if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_ctrl_c_in_every_stage_leaves_nothing_half_written_and_the_same_command_goes_on(
    project: Path, env: Mapping[str, str], sysml_run: Any
) -> None:
    arguments = ("tiny.yaml", "--runs", "stopped", "--set", "training.max_steps=200")
    for stage in ("prepare", "train", "evaluate", "merge", "package", "report"):
        process = start(project, env, *arguments)
        wait_for(lambda stage=stage: in_stage(project / "stopped/tiny", stage), process)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        run = only(project / "stopped/tiny")
        assert run
        for name in ("model", "merged", "package"):
            assert not (run / name).exists() or (run / f"records/{RECORD[name]}.json").exists(), f"{name} after {stage}"
    sysml_run(*arguments)
    run = only(project / "stopped/tiny")
    assert run
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert len(list((project / "stopped/tiny").iterdir())) == 1


RECORD = {"model": "train", "merged": "merge", "package": "package"}


def in_stage(runs: Path, stage: str) -> bool:
    """The stage's process is at work (training: has made a few steps)."""
    run = only(runs)
    if run is None or not (run / "events.jsonl").is_file():
        return False
    if stage == "train":
        return len(lines(run)) > 3
    return f'"stage_started", "stage": "{stage}"' in (run / "events.jsonl").read_text()


def test_a_changed_recipe_is_not_resumed(finished: Path, sysml_run: Any) -> None:
    done = sysml_run("tiny.yaml", "--resume", str(finished), "--set", "optimizer.learning_rate=0.5", code=2)
    assert "the recipe has changed" in done.stderr
