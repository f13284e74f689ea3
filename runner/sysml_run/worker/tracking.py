"""Experiment trackers, through transformers' own callbacks: each in a folder of the run, unless told of a server.

What the run itself writes is whole without them: a tracker that cannot start stops the run before its first step,
and one that fails later is left out of the rest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sysml_run.caches import offline
from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, write_json

from . import ranks

Variables = Mapping[str, str]
SECRET = re.compile(r"(?<=//)[^/@]*@")  # a name and a password in an address
MLFLOW_RUN = "run.json"  # the id under which a run that is resumed goes on


def tensorboard(folder: Path, name: str, project: str) -> Variables:
    return {"TENSORBOARD_LOGGING_DIR": str(folder)}


def mlflow(folder: Path, name: str, project: str) -> Variables:
    return {"MLFLOW_TRACKING_URI": folder.as_uri(), "MLFLOW_EXPERIMENT_NAME": project}


def wandb(folder: Path, name: str, project: str) -> Variables:
    return {"WANDB_MODE": "offline", "WANDB_PROJECT": project}


def trackio(folder: Path, name: str, project: str) -> Variables:
    return {"TRACKIO_DIR": str(folder)}


# What says where each writes; the user's own environment wins, but with --offline.
PLACES: Mapping[str, Callable[[Path, str, str], Variables]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb": wandb,
    "trackio": trackio,
}
SERVERS = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": "WANDB_MODE", "trackio": "TRACKIO_SPACE_ID"}


def callbacks(recipe: Recipe, rundir: RunDir) -> list[Any]:
    """One for each tracker of the recipe, on the first process alone. Raises StageError for one that cannot load."""
    return [Tracker(name, rundir, recipe.name) for name in recipe.tracking] if ranks.first() else []


def named(rundir: RunDir) -> str:
    """The name of the run in trackers: `NAME-ID`, or `ID-fold-1`."""
    return "-".join(rundir.path.parts[-2:])


class Tracker(TrainerCallback):  # type: ignore[misc]
    """Passes on what transformers' callback for this tracker needs to hear."""

    def __init__(self, name: str, rundir: RunDir, project: str) -> None:
        self.name, self.rundir, self.failed = name, rundir, False
        self.folder = rundir.tracking / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.where = settle(name, self.folder, named(rundir), project)
        self.inner = self._started(_class(name))

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._started(lambda: self.inner.on_train_begin(args, state, control, **rest))
        if self.name == "mlflow":
            import mlflow

            active = mlflow.active_run()
            write_json(self.folder / MLFLOW_RUN, {"run_id": active.info.run_id if active else None})
        self.rundir.event("tracking", tracker=self.name, where=self.where)

    def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._told(lambda: self.inner.on_log(args, state, control, **rest))

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._told(lambda: self.inner.on_train_end(args, state, control, **rest))

    def _started(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            message = f"tracking with {self.name} does not start: {_words(error)}"
            raise StageError(message, f"mend what it says, or take {self.name} out of tracking") from error

    def _told(self, act: Callable[[], Any]) -> None:
        if self.failed:
            return
        try:
            act()
        except Exception as error:
            self.failed = True
            words = _words(error)
            print(f"note: {self.name} fails and is told no more: {words}", flush=True)
            self.rundir.event("tracker_failed", tracker=self.name, message=words)


def settle(name: str, folder: Path, run: str, project: str) -> str:
    """Set what the library reads of the environment, and say where it writes: a folder of the run, or a server."""
    own = PLACES[name](folder, run, project)
    server = SERVERS.get(name)
    if offline() and server:
        os.environ.pop(server, None)
    for variable, value in {**own, **QUIET.get(name, {})}.items():
        os.environ.setdefault(variable, value)
    if name == "wandb":
        os.environ.update({f"WANDB_{kind}": str(folder) for kind in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR")})
        os.environ.update(WANDB_RUN_ID=run, WANDB_RESUME="allow")
    if name == "mlflow" and (folder / MLFLOW_RUN).is_file():
        os.environ["MLFLOW_RUN_ID"] = read_json(folder / MLFLOW_RUN)["run_id"]
    told = os.environ.get(server, "") if server else ""
    local = not told or told == own.get(server or "")
    return f"tracking/{name}" if local else SECRET.sub("", told)


QUIET: Mapping[str, Variables] = {
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"},  # its small package has no other
    "wandb": {
        **dict.fromkeys(("WANDB_SILENT", "WANDB_DISABLE_GIT", "WANDB_DISABLE_CODE"), "true"),
        **dict.fromkeys(("WANDB_ERROR_REPORTING", "WANDB_LOG_MODEL"), "false"),
        "WANDB_CONSOLE": "off",
    },
}


def _class(name: str) -> Any:
    from transformers.integrations import integration_utils

    return integration_utils.INTEGRATION_TO_CALLBACK[name]


def _words(error: Exception) -> str:
    """The first line, without a password in an address."""
    first = str(error).strip().partition("\n")[0]
    return SECRET.sub("", f"{type(error).__name__}: {first}" if first else type(error).__name__)
