"""Training that ends before its last step: by a loss that is no number or leaps, and by early stopping."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from .conftest import Run, read


def only(project: Path, runs: str) -> Path:
    (path,) = (project / runs / "tiny").iterdir()
    return path


def stop(path: Path) -> dict:
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    (event,) = [one for one in events if one["event"] == "loss_stop"]
    return event


def test_a_loss_that_is_no_number_names_its_rows(sysml_run: Run, project: Path) -> None:
    wild = ("--set", "optimizer.weight_decay=1e30")  # each step multiplies the weights by -1e28
    done = sysml_run("tiny.yaml", "--runs", "runs-nan", *wild, code=1)
    assert "the loss is no number; it was computed on rows.jsonl" in done.stderr
    assert "Traceback" not in done.stderr
    path = only(project, "runs-nan")
    event = stop(path)
    assert 1 <= len(event["rows"]) <= 4
    assert all(row.startswith("rows.jsonl") for row in event["rows"])
    assert not list((path / "checkpoints").glob(f"checkpoint-{event['step']}"))
    steps = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert all(step < event["step"] for step in steps)


def test_early_stopping_is_not_forgotten_by_a_run_that_goes_on(sysml_run: Run, project: Path) -> None:
    """Killed between its last checkpoint and the finished model, it makes the same model and no further step."""
    settings = ("evaluation.every_steps=2", "training.save_steps=2", "training.max_steps=20")
    early = "evaluation.early_stopping={patience: 1, min_delta: 100}"
    told = [word for one in (*settings, early) for word in ("--set", one)]
    sysml_run("tiny.yaml", "--runs", "runs-early", "--until", "train", *told)
    path = only(project, "runs-early")
    before, weights = read(path / "records/train.json"), digest(path)
    assert before["steps"] == 4
    (path / "records/train.json").unlink()
    shutil.rmtree(path / "model")
    done = sysml_run("tiny.yaml", "--runs", "runs-early", "--until", "train", "--resume", *told)
    assert "going on from checkpoint-4" in done.stdout
    assert "step 5" not in done.stdout
    assert read(path / "records/train.json")["steps"] == 4
    assert digest(path) == weights


def digest(path: Path) -> str:
    return hashlib.sha256((path / "model/adapter_model.safetensors").read_bytes()).hexdigest()
