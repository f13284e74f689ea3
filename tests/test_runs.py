"""Run directories: made, found again, locked, and swept of what was half written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sysml_run import document, overrides, plan, planview, runs
from sysml_run.commands import load
from sysml_run.errors import UsageError
from sysml_run.machine import Machine
from sysml_run.plan import Plan
from sysml_run.resolve import resolve
from sysml_run.rundir import RunDir

MACHINE = Machine(2, 8 * 2**30, "CPU", False, "this processor has no bf16 instructions", "/venv/bin/python")
RECIPE = """\
version: 1  # a comment
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-4}
training: {max_steps: 3}
"""


def planned(path: Path, *assignments: str) -> Plan:
    return plan.make(resolve(overrides.apply(document.parse(RECIPE, "one.yaml"), assignments)), MACHINE, str(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def create(folder: Path, number: int, *assignments: str) -> RunDir:
    rundir = RunDir(folder / "one" / f"20260101-00000{number}-abcd")
    made = planned(rundir.path, *assignments)
    runs.write(rundir, made, RECIPE, planview.values(made, "one.yaml"))
    return rundir


def test_a_new_path_is_absolute_and_never_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {runs.new_path(Path("runs"), "one") for _ in range(20)}
    assert len(paths) == 20
    assert all(path.parent == tmp_path / "runs/one" for path in paths)
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", path.name) for path in paths)


def test_what_a_run_directory_holds(folder: Path) -> None:
    rundir = create(folder, 1)
    made = planned(rundir.path)
    assert (rundir / "recipe.yaml").read_text() == RECIPE
    recipe = json.loads(rundir.recipe.read_text())
    assert recipe == {"values": made.values, "sources": made.sources}
    assert recipe["sources"]["optimizer.learning_rate"] == "one.yaml:5"
    assert json.loads((rundir / "plan.json").read_text()) == planview.values(made, "one.yaml")
    names = {file.name for file in rundir.launch.iterdir()}
    assert names == {"accelerate.yaml", *(f"{launch.stage}.sh" for launch in made.launches)}
    shebang, line = (rundir.launch / "train.sh").read_text().splitlines()
    assert shebang == "#!/bin/sh"
    assert f"{rundir.path}/launch/accelerate.yaml" in shlex.split(line)
    assert runs.state(rundir) == {"state": "new", "stage": None}


def test_find_by_path_by_id_and_the_newest(folder: Path) -> None:
    first, second = create(folder, 1), create(folder, 2)
    (folder / "one/20260101-000009-half").mkdir()
    assert runs.all_runs(folder, "one") == [first, second]
    assert runs.find(folder, "one", "") == second
    assert runs.find(folder, "one", first.path.name) == first
    assert runs.find(folder, "other", str(first.path)) == first


@pytest.mark.parametrize(("wanted", "words"), [("", "no run of 'one'"), ("20260101", "no run directory 20260101")])
def test_a_run_that_is_not_there(folder: Path, wanted: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        runs.find(folder, "one", wanted)
    assert error.value.hint


def test_only_the_newest_interrupted_run_of_the_same_recipe_goes_on_by_itself(folder: Path) -> None:
    made = planned(folder)
    assert runs.interrupted(folder, made) is None
    first = create(folder, 1)
    assert runs.interrupted(folder, made) is None
    for state in ("running", "failed", "done", "partial"):
        runs.set_state(first, state, "train")
        assert runs.interrupted(folder, made) is None
    runs.set_state(first, "interrupted", "train")
    assert runs.interrupted(folder, made) == first
    assert runs.interrupted(folder, planned(folder, "training.max_steps=4")) is None
    create(folder, 2)
    assert runs.interrupted(folder, made) is None


def test_the_same_recipe_is_the_same_whatever_its_values_sources(folder: Path) -> None:
    rundir = create(folder, 1)
    assert runs.same(rundir, planned(folder / "elsewhere", "optimizer.learning_rate=0.0001"))
    assert not runs.same(rundir, planned(folder, "seed=1"))
    assert runs.changes(rundir, planned(folder, "seed=1", "lora={r: 8}", "datasets.0.weight=2")) == [
        "seed", "datasets.0.weight", "lora", "lora.r", "lora.alpha", "lora.dropout", "lora.target_modules",
        "lora.use_rslora", "lora.use_dora",
    ]  # fmt: skip


def test_the_state_is_read_back(folder: Path) -> None:
    rundir = create(folder, 1)
    runs.set_state(rundir, "failed", "merge")
    assert runs.state(rundir) == {"state": "failed", "stage": "merge", "pid": os.getpid()}


HOLD = """
import sys, time
from pathlib import Path
from sysml_run import runs
from sysml_run.rundir import RunDir
with runs.owned(RunDir(Path(sys.argv[1]))):
    runs.set_state(RunDir(Path(sys.argv[1])), "running", "train")
    print("held", flush=True)
    time.sleep(60)
"""
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def refused(rundir: RunDir) -> str:
    with pytest.raises(UsageError) as error, runs.owned(rundir):
        raise AssertionError("the lock was given twice")
    return error.value.message


def test_a_run_belongs_to_one_process(folder: Path) -> None:
    rundir = create(folder, 1)
    env = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[1])}
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(rundir.path)], env=env, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        (rundir / ".partial-other").write_text("at work")
        assert refused(rundir) == f"{rundir.path} is in use (process {other.pid} or one it started)"
        assert (rundir / ".partial-other").exists()
        other.kill()
    with runs.owned(rundir):
        assert not (rundir / ".partial-other").exists()


def test_the_lock_is_held_as_long_as_a_stage_lives(folder: Path) -> None:
    rundir = create(folder, 1)
    with runs.owned(rundir) as lock:
        stage = subprocess.Popen(SLEEP, pass_fds=(lock,), stdout=subprocess.PIPE)
        assert stage.stdout is not None
        stage.stdout.readline()
    with stage:
        assert "is in use" in refused(rundir)
        stage.kill()
    with runs.owned(rundir):
        pass


def test_a_process_that_is_not_given_the_lock_does_not_keep_it(folder: Path) -> None:
    rundir = create(folder, 1)
    with runs.owned(rundir):
        stage = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
        assert stage.stdout is not None
        stage.stdout.readline()
    with stage, runs.owned(rundir):
        stage.kill()


def test_what_was_half_written_is_swept_and_nothing_else(folder: Path) -> None:
    rundir = create(folder, 1)
    (rundir / "checkpoints/.partial-checkpoint/checkpoint-2/.partial-x").mkdir(parents=True)
    (rundir / ".partial-file").write_text("half")
    (rundir / ".partial-link").symlink_to(rundir / "recipe.yaml")
    (rundir / "checkpoints/checkpoint-1").mkdir()
    with runs.owned(rundir):
        assert not list(rundir.path.rglob(".partial-*"))
        assert (rundir / "recipe.yaml").is_file()
        assert [each.name for each in rundir.checkpoints.iterdir()] == ["checkpoint-1"]


def test_a_stopped_run_is_marked_and_a_failed_one_keeps_its_mark(folder: Path) -> None:
    rundir = create(folder, 1)

    def hold(error: BaseException) -> None:
        with runs.owned(rundir):
            runs.set_state(rundir, "running", "evaluate")
            raise error

    with pytest.raises(ValueError, match="a surprise"):
        hold(ValueError("a surprise"))
    assert runs.state(rundir)["state"] == "running"
    with pytest.raises(KeyboardInterrupt):
        hold(KeyboardInterrupt())
    assert (runs.state(rundir)["state"], runs.state(rundir)["stage"]) == ("interrupted", "evaluate")


def test_the_lock_can_be_taken_before_anything_is_there(tmp_path: Path) -> None:
    started = time.monotonic()
    with runs.owned(RunDir(tmp_path / "a/b")):
        assert (tmp_path / "a/b/.lock").is_file()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_run_whose_state_cannot_be_read_is_passed_over(folder: Path, text: str) -> None:
    rundir = create(folder, 1)
    (rundir / "status.json").write_text(text)
    assert runs.state(rundir) == {"state": "unknown", "stage": None}
    assert runs.interrupted(folder, planned(folder)) is None
    runs.set_state(rundir, "interrupted", "train")
    assert runs.interrupted(folder, planned(folder)) == rundir


def test_a_run_whose_recipe_cannot_be_read_is_named(folder: Path) -> None:
    rundir = create(folder, 1)
    runs.set_state(rundir, "interrupted", "train")
    rundir.recipe.write_text("{")
    with pytest.raises(UsageError, match=r"recipe\.json cannot be read") as error:
        runs.interrupted(folder, planned(folder))
    assert "move that run away" in str(error.value.hint)


def test_where_a_relative_artifacts_dir_counts_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "here").mkdir(parents=True)
    monkeypatch.chdir(folder / "here")
    assert runs.published(None, None) is None
    assert runs.published(None, "/models") == "/models"
    assert runs.published(None, "~/models") == "~/models"
    assert runs.published(None, "models/x") == f"{folder}/here/models/x"
    rundir = create(folder, 1, f"artifacts.dir={folder}/here/models/x")
    assert runs.changes(rundir, planned(folder, "artifacts.dir=x")) == ["artifacts.dir"]
    monkeypatch.chdir(folder)
    assert runs.published(rundir, "models/x") == f"{folder}/here/models/x"
    assert runs.published(rundir, "models/y") == f"{folder}/here/models/y"
    assert runs.same(rundir, planned(folder, "artifacts.dir=models/x"))
    assert runs.changes(rundir, planned(folder, "artifacts.dir=models/y")) == ["artifacts.dir"]
    made = planned(folder, "artifacts.dir=models/y")
    runs.reopen(rundir, made, RECIPE, planview.values(made, "one.yaml"), "package")
    assert runs.published(rundir, "models/x") == f"{folder}/here/models/x"


def test_home_in_artifacts_dir_is_looked_at_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").write_text("a file")
    text = overrides.apply(document.parse(RECIPE, "one.yaml"), ["artifacts.dir=~/mine"])
    with pytest.raises(UsageError, match="it is a file"):
        load.ready(resolve(text))
    text = overrides.apply(document.parse(RECIPE, "one.yaml"), ["artifacts.dir=~nobody-of-this-name/mine"])
    with pytest.raises(UsageError) as error:
        load.ready(resolve(text))
    assert error.value.hint == "write the folder out"


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        (["artifacts.dir", "artifacts.max_shard_size"], "package"),
        (["artifacts.dir", "quantization.export.0.type"], "quantize"),
        (["quantization.export"], "quantize"),
        (["artifacts.dir", "quantization.load"], None),
        (["seed"], None),
    ],
)
def test_what_may_change_after_training(keys: list[str], first: str | None) -> None:
    assert runs.exports(keys) == first


def test_a_run_gets_other_exports(folder: Path) -> None:
    rundir = create(folder, 1)
    for stage in ("prepare", "train", "evaluate", "package", "report"):
        (rundir / "records").mkdir(exist_ok=True)
        rundir.record(stage).write_text("{}")
    (rundir / "manifest.json").write_text("{}")
    made = planned(rundir.path, "artifacts.max_shard_size=50MB")
    again = runs.reopen(rundir, made, "another text", planview.values(made, "one.yaml"), "package")
    assert again == ["package", "report"]
    assert [stage for stage in ("prepare", "train", "evaluate") if rundir.done(stage)] == [
        "prepare",
        "train",
        "evaluate",
    ]
    assert not rundir.done("package")
    assert not (rundir / "manifest.json").exists()
    assert runs.same(rundir, made)
    assert (rundir / "recipe.yaml").read_text() == "another text"
    event = json.loads((rundir / "events.jsonl").read_text())
    assert (event["event"], event["keys"], event["again"]) == ("exports_changed", ["artifacts.max_shard_size"], again)
