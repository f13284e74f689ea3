"""Every tracker for real, in the form that stays on this machine."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import RECIPE, rows

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
SECRET = "0123456789abcdef0123456789abcdef01234567"
SHORT = RECIPE.replace("max_steps: 8", "max_steps: 4").replace("save_steps: 4", "save_steps: 2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tracked")
    (found / "rows.jsonl").write_text(rows())
    (found / "tiny.yaml").write_text(SHORT + f"tracking: [{', '.join(TRACKERS)}]\n")
    return found


def run(folder: Path, env: Mapping[str, str], *arguments: str, code: int = 0) -> str:
    """The command in the folder, with a key of an account at hand; what it prints."""
    command = [sys.executable, "-m", "sysml_run.cli", "tiny.yaml", "--until", "train", *arguments]
    told = {**env, "WANDB_API_KEY": SECRET, "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tracked(folder: Path, env: Mapping[str, str]) -> Path:
    """A run that went on from its second step once, as after a kill behind the fourth."""
    run(folder, env)
    (path,) = (folder / "runs/tiny").iterdir()
    (path / "records/train.json").unlink()
    for name in ("checkpoints/checkpoint-4", "model"):
        shutil.rmtree(path / name)
    run(folder, env, "--resume")
    return path


def losses(path: Path) -> dict[int, float]:
    """What the run itself wrote, by step."""
    lines = (json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_tensorboard(tracked: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tracked / "tracking/tensorboard"))
    read.Reload()
    found = {event.step: event.value for event in read.Scalars("train/loss")}
    assert found == pytest.approx(losses(tracked), abs=1e-5)


def test_mlflow(tracked: Path) -> None:
    """In a process of its own: the library reads what says where only once."""
    code = (
        "import json, sys; from mlflow import MlflowClient; client = MlflowClient(sys.argv[1])\n"
        "(run,) = client.search_runs([client.get_experiment_by_name('tiny').experiment_id])\n"
        "history = client.get_metric_history(run.info.run_id, 'loss')\n"
        "print(json.dumps([run.info.run_name, run.info.status, [[one.step, one.value] for one in history]]))"
    )
    where = (tracked / "tracking/mlflow").as_uri()
    command = [sys.executable, "-W", "ignore", "-c", code, where]
    told = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"}
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    name, status, history = json.loads(done.stdout.splitlines()[-1])
    assert (name, status) == (f"tiny-{tracked.name}", "FINISHED")
    assert dict(history) == pytest.approx(losses(tracked), abs=1e-5)


def test_wandb(tracked: Path) -> None:
    """Two parts of one run, each in a file that `wandb sync` sends."""
    found = sorted((tracked / "tracking/wandb").rglob("*.wandb"))
    assert [path.name for path in found] == [f"run-tiny-{tracked.name}.wandb"] * 2
    assert all(b"train/loss" in path.read_bytes() for path in found)


def test_trackio(tracked: Path) -> None:
    (file,) = (tracked / "tracking/trackio").rglob("tiny.db")
    with closing(sqlite3.connect(file)) as connection:
        read = connection.execute("select run_name, metrics from metrics order by step").fetchall()
    logged = [json.loads(metrics) for _, metrics in read]
    found = {one["train/global_step"]: one["train/loss"] for one in logged if "train/loss" in one}
    assert {name for name, _ in read} == {f"tiny-{tracked.name}"}
    assert found == pytest.approx(losses(tracked), abs=1e-5)


def test_the_run_says_where_they_wrote(tracked: Path) -> None:
    events = [json.loads(line) for line in (tracked / "events.jsonl").read_text().splitlines()]
    said = [(one["tracker"], one["where"]) for one in events if one["event"] == "tracking"]
    assert said == [(name, f"tracking/{name}") for name in TRACKERS] * 2
    assert not any(one["event"] == "tracker_failed" for one in events)


def test_nothing_lies_elsewhere_and_no_key_in_any_file(tracked: Path, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= {"rows.jsonl", "tiny.yaml", "runs", ".cache", ".config"}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_one_that_cannot_start_stops_the_run(folder: Path, env: Mapping[str, str]) -> None:
    broken = {**env, "HF_HUB_OFFLINE": "0", "MLFLOW_TRACKING_URI": "nowhere://name:word@host"}
    said = run(folder, broken, "--set", "tracking=[mlflow]", "--runs", "refused", code=1)
    assert "tracking with mlflow does not start" in said
    assert "take mlflow out of tracking" in said
    assert "name:word" not in said
    assert "Traceback" not in said
