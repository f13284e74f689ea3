"""Where trackers are told to write, and what becomes of one that fails; whole runs are in tests/pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, write_json
from sysml_run.worker import tracking
from sysml_run.worker.tracking import Tracker, callbacks, named, settle

STATE = SimpleNamespace(is_world_process_zero=True, is_hyper_param_search=False, global_step=3)
ARGUMENTS = SimpleNamespace(to_json_string=lambda: "{}", output_dir="out")
OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One of the test's own; what a tracker sets is gone after it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "MLFLOW", "TRACKIO"))}
    kept = {name: value for name, value in kept.items() if name not in ("HF_HUB_OFFLINE", "RANK")}
    monkeypatch.setattr(os, "environ", kept)
    return kept


def tell(tracker: Tracker, event: str, **rest: Any) -> None:
    getattr(tracker, event)(ARGUMENTS, STATE, None, **rest)


def events(rundir: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (rundir / "events.jsonl").read_text().splitlines()]


def tracked(make_recipe: Callable[..., Recipe], *names: str) -> Recipe:
    return make_recipe(datasets=[{"path": "rows.jsonl", "type": "text"}], tracking=[*names])


def test_each_writes_below_the_run(rundir: RunDir, environment: dict[str, str]) -> None:
    for name in tracking.PLACES:
        assert settle(name, rundir.tracking / name, "tiny-1", "tiny") == f"tracking/{name}"
    assert environment["WANDB_MODE"] == "offline"
    assert environment["WANDB_DIR"] == str(rundir.tracking / "wandb")
    assert environment["MLFLOW_TRACKING_URI"] == (rundir.tracking / "mlflow").as_uri()
    assert environment["TRACKIO_DIR"] == str(rundir.tracking / "trackio")
    assert environment["TENSORBOARD_LOGGING_DIR"] == str(rundir.tracking / "tensorboard")


@pytest.mark.parametrize(
    ("name", "told", "where"),
    [
        ("wandb", {"WANDB_MODE": "online"}, "online"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "https://me:word@host/x"}, "https://host/x"),
        ("trackio", {"TRACKIO_SPACE_ID": "me/space"}, "me/space"),
    ],
)
def test_a_server_of_the_environment_is_kept_but_not_offline(
    name: str, told: dict[str, str], where: str, rundir: RunDir, environment: dict[str, str]
) -> None:
    environment.update(told)
    assert settle(name, rundir.tracking / name, "tiny-1", "tiny") == where
    assert environment.items() >= told.items()
    environment.update(OFFLINE)
    assert settle(name, rundir.tracking / name, "tiny-1", "tiny") == f"tracking/{name}"
    assert not environment.items() >= told.items()


def test_a_run_that_goes_on_is_the_same_run_there(rundir: RunDir, environment: dict[str, str]) -> None:
    folder = rundir.tracking / "mlflow"
    write_json(folder / tracking.MLFLOW_RUN, {"run_id": "abc"})
    settle("mlflow", folder, "tiny-1", "tiny")
    settle("wandb", rundir.tracking / "wandb", "tiny-1", "tiny")
    assert environment["MLFLOW_RUN_ID"] == "abc"
    assert (environment["WANDB_RUN_ID"], environment["WANDB_RESUME"]) == ("tiny-1", "allow")


def test_one_that_fails_later_is_left_out(
    rundir: RunDir, make_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    (tracker,) = callbacks(tracked(make_recipe, "tensorboard"), rundir)
    tell(tracker, "on_train_begin")
    tell(tracker, "on_log", logs={"loss": 1.0})
    tell(tracker, "on_train_end")
    folder = rundir.tracking / "tensorboard"
    folder.rename(rundir / "moved")
    folder.write_text("in the way")
    for _ in range(3):
        tell(tracker, "on_log", logs={"loss": 1.0})
    tell(tracker, "on_train_end")
    assert capsys.readouterr().out.count("note: tensorboard fails and is told no more") == 1
    assert [one["event"] for one in events(rundir)] == ["tracking", "tracker_failed"]
    assert list((rundir / "moved").glob("events.out.tfevents*"))


def test_one_that_cannot_start_is_an_error(rundir: RunDir, make_recipe: Callable[..., Recipe]) -> None:
    (tracker,) = callbacks(tracked(make_recipe, "tensorboard"), rundir)
    folder = rundir.tracking / "tensorboard"
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(StageError, match=r"^tracking with tensorboard does not start: .*Error") as caught:
        tell(tracker, "on_train_begin")
    assert caught.value.hint == "mend what it says, or take tensorboard out of tracking"


def test_words_hold_no_password() -> None:
    assert tracking._words(ValueError("no http://a:b@host/\nmore")) == "ValueError: no http://host/"
    assert tracking._words(KeyError()) == "KeyError"


def test_the_first_process_alone_tells(
    rundir: RunDir, make_recipe: Callable[..., Recipe], environment: dict[str, str]
) -> None:
    environment["RANK"] = "1"
    assert callbacks(tracked(make_recipe, "tensorboard"), rundir) == []


def test_names_in_trackers() -> None:
    assert named(RunDir(Path("/a/runs/tiny/20260101-1"))) == "tiny-20260101-1"
    assert named(RunDir(Path("/a/runs/tiny/20260101-1/fold-2"))) == "20260101-1-fold-2"
