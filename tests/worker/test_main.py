"""The worker's own command: records of what is done, and words for what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document, resolve
from sysml_run.rundir import RunDir, write_json
from sysml_run.worker import __main__ as worker

RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: rows.jsonl, type: prompt_completion}]
split: {validation: 2}
prompt: {sequence_len: 256}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2, gradient_accumulation_steps: 1}
hardware: {accelerator: cpu, precision: fp32, threads: 1}
"""


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    """A run directory that has its recipe, and eight rows."""
    made = resolve.resolve(document.parse(RECIPE, str(tmp_path / "r.yaml")))
    rows = [{"prompt": f"say {number}", "completion": str(number)} for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = RunDir(tmp_path / "run")
    write_json(run.recipe, {"values": made.values, "sources": made.sources})
    return run


def events(rundir: RunDir) -> list[tuple[str, str]]:
    lines = (rundir / "events.jsonl").read_text().splitlines()
    return [(line["event"], line.get("stage", "")) for line in map(json.loads, lines)]


def error(rundir: RunDir) -> dict[str, Any]:
    return dict(json.loads(rundir.error.read_text()))


def test_a_stage_leaves_its_record_and_is_not_redone(rundir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["prepare", str(rundir.path)]) == 0
    record = json.loads(rundir.record("prepare").read_text())
    assert record["seconds"] > 0
    assert record["started"].endswith("+00:00")
    assert record["rows"]["train"] == 6
    assert events(rundir) == [("stage_started", "prepare"), ("stage_finished", "prepare")]
    assert worker.main(["prepare", str(rundir.path)]) == 0
    assert "prepare: done before" in capsys.readouterr().out
    assert len(events(rundir)) == 2
    assert not rundir.error.exists()


def test_the_last_stage_of_the_plan_leaves_the_manifest(rundir: RunDir) -> None:
    """Whoever started it: a job on a cluster runs the stages one by one."""
    write_json(rundir / "plan.json", {"launch": [{"stage": "prepare"}, {"stage": "train"}]})
    assert worker.main(["prepare", str(rundir.path)]) == 0
    assert not (rundir / "manifest.json").exists()
    write_json(rundir.record("train"), {})
    assert worker.main(["train", str(rundir.path)]) == 0
    made = json.loads((rundir / "manifest.json").read_text())
    assert {"plan.json", "recipe.json", "records/train.json"} <= set(made["files"])


def test_a_failure_the_user_can_mend(rundir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main(["evaluate", "package", str(rundir.path)]) == 1
    assert error(rundir) == {
        "stages": ["evaluate", "package"],
        "message": f"{rundir.model} is not there yet",
        "hint": "run the train stage first",
    }
    shown = capsys.readouterr().err
    assert shown == f"error: {rundir.model} is not there yet\nrun the train stage first\n"
    assert not rundir.done("evaluate")


def test_an_unknown_stage(rundir: RunDir) -> None:
    assert worker.main(["data", str(rundir.path)]) == 1
    assert error(rundir)["message"] == "there is no stage 'data'"


def test_a_fault_leaves_its_traceback_in_the_log(rundir: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    rundir.recipe.write_text("{")
    assert worker.main(["prepare", str(rundir.path)]) == 1
    assert error(rundir)["message"].startswith("JSONDecodeError: ")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_training_by_hand_prepares_first_and_shows_only_our_own_words(rundir: RunDir) -> None:
    """As `accelerate launch -m sysml_run.worker train RUN` starts it."""
    env = {**os.environ, "PYTHONPATH": str(Path(worker.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sysml_run.worker", "train", str(rundir.path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert rundir.done("prepare")
    assert rundir.done("train")
    assert "Warning" not in done.stderr
    assert "step 1/2" in done.stdout


def test_interrupted(rundir: RunDir) -> None:
    """Ctrl-C while rows are read: no record, no error of ours, nothing under a final name."""
    rows = rundir.path.parent / "rows.jsonl"
    rows.unlink()
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 300_000)
    env = {**os.environ, "PYTHONPATH": str(Path(worker.__file__).parents[2])}
    command = [sys.executable, "-m", "sysml_run.worker", "prepare", str(rundir.path)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (rundir / "events.jsonl").is_file():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not rundir.error.exists()
    assert not rundir.done("prepare")
