"""Where runs live: making a new run directory, finding one to resume, and the state each is in."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import UsageError
from .plan import Plan, command
from .position import Pointer, dotted
from .rundir import RunDir, lock, read_json, sweep, write_json, write_text


def new_path(runs: Path, name: str) -> Path:
    """A fresh `runs/NAME/TIME-XXXX`; the time is UTC."""
    return runs.absolute() / name / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def write(rundir: RunDir, plan: Plan, recipe_text: str, shown: dict[str, Any]) -> None:
    """Lay out a run directory: the recipe as written and as resolved, the plan, and the launch files."""
    write_text(rundir / "recipe.yaml", recipe_text)
    write_json(rundir / "plan.json", shown)
    for launch in plan.launches:
        for name, text in launch.files.items():
            write_text(rundir / name, text)
        write_text(rundir.launch / f"{launch.stage}.sh", f"#!/bin/sh\n{command(launch)}\n")
    write_json(rundir.recipe, {"values": plan.values, "sources": plan.sources})


def find(runs: Path, name: str, wanted: str) -> RunDir:
    """The run to resume: a run directory, an id of this recipe's runs, or the newest one for an empty `wanted`.

    Raises UsageError.
    """
    if not wanted:
        known = all_runs(runs, name)
        if not known:
            raise UsageError(f"there is no run of {name!r} in {runs}", "leave --resume out to start one")
        return known[-1]
    for path in (Path(wanted), runs / name / wanted):
        if (path / "recipe.json").is_file():
            return RunDir(path.absolute())
    raise UsageError(f"there is no run directory {wanted}", f"see {runs / name}")


def all_runs(runs: Path, name: str) -> list[RunDir]:
    """Runs of a recipe, oldest first."""
    folders = sorted((runs.absolute() / name).glob("*/recipe.json"))
    return [RunDir(file.parent) for file in folders]


def interrupted(runs: Path, plan: Plan) -> RunDir | None:
    """The newest run of the same resolved recipe, if it was stopped by its user before its end."""
    known = all_runs(runs, plan.recipe.name)
    if known and state(known[-1])["state"] == "interrupted" and same(known[-1], plan):
        return known[-1]
    return None


def same(rundir: RunDir, plan: Plan) -> bool:
    """Whether the run was started from the same resolved recipe."""
    return not changes(rundir, plan)


def changes(rundir: RunDir, plan: Plan) -> list[str]:
    """The keys whose value is not the one that the run was started with; derived values count."""
    before, after = dict(_leaves(read_json(rundir.recipe)["values"])), dict(_leaves(plan.values))
    return [dotted(at) for at in dict.fromkeys([*before, *after]) if before.get(at, ...) != after.get(at, ...)]


def _leaves(value: Any, at: Pointer = ()) -> Iterator[tuple[Pointer, Any]]:
    if isinstance(value, dict | list) and value:
        for part, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(below, (*at, part))
    else:
        yield at, value


def state(rundir: RunDir) -> dict[str, Any]:
    """`state` is new, running, interrupted, failed, partial (--only, --until) or done; `stage` the last one started."""
    path = rundir / "status.json"
    return dict(read_json(path)) if path.is_file() else {"state": "new", "stage": None}


def set_state(rundir: RunDir, name: str, stage: str | None) -> None:
    write_json(rundir / "status.json", {"state": name, "stage": stage, "pid": os.getpid()})


@contextmanager
def owned(rundir: RunDir) -> Iterator[int]:
    """Hold the run's lock, which the stages' processes inherit, so that no two commands write to one run.

    Yields the lock's file descriptor. A run that its user stops is marked as interrupted. Raises UsageError while
    another command, or a process it left, has the lock.
    """
    handle, worker = lock(rundir / ".lock"), lock(rundir.at_work)
    if worker is not None:
        os.close(worker)
    if handle is None or worker is None:
        held = state(rundir).get("pid")
        raise UsageError(f"{rundir.path} is in use (process {held} or one it started)", "wait, or stop it")
    try:
        sweep(rundir.path)
        yield handle
    except KeyboardInterrupt:
        set_state(rundir, "interrupted", state(rundir)["stage"])
        raise
    finally:
        os.close(handle)
