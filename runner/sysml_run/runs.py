"""Where runs live: making a new run directory, finding one to resume, and the state each is in."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import UsageError
from .plan import STAGES, Plan, files
from .position import Pointer, dotted
from .rundir import RunDir, lock, read_json, sweep, write_json, write_text

PUBLISHED: Pointer = ("artifacts", "dir")
STARTED = "started_in.txt"  # the folder from which a relative `artifacts.dir` is counted
EXPORTS: Mapping[str, tuple[str, ...]] = {  # what may change after training, by the first stage that reads it
    "quantize": ("quantization.export", "quantization.max_perplexity_increase"),
    "package": ("artifacts.",),
}


def new_path(runs: Path, name: str) -> Path:
    """A fresh `runs/NAME/TIME-XXXX`; the time is UTC."""
    return runs.absolute() / name / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def write(rundir: RunDir, plan: Plan, recipe_text: str, shown: dict[str, Any]) -> None:
    """Lay out a run directory."""
    for name, text in files(plan, shown, recipe_text).items():
        write_text(rundir / name, text)
    if not (rundir / STARTED).is_file():
        write_text(rundir / STARTED, f"{Path.cwd()}\n")


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
    """The keys whose value is not the one that the run was started with; derived values count.

    A relative `artifacts.dir` is counted from where the run was started, and is the same wherever it is resumed.
    """
    before, after = dict(_leaves(_values(rundir))), dict(_leaves(plan.values))
    after[PUBLISHED] = published(rundir, after.get(PUBLISHED))
    return [dotted(at) for at in dict.fromkeys([*before, *after]) if before.get(at, ...) != after.get(at, ...)]


def published(rundir: RunDir | None, written: str | None) -> str | None:
    """`artifacts.dir` as a whole path: from the current folder, or from where this run was started."""
    if written is None or written.startswith(("/", "~")):
        return written
    start = rundir / STARTED if rundir else None
    return str((Path(start.read_text().rstrip("\n")) if start and start.is_file() else Path.cwd()) / written)


def exports(keys: Iterable[str]) -> str | None:
    """The first stage that reads one of these keys, where none before `quantize` does; None where one does."""
    stages = [next((stage for stage, of in EXPORTS.items() if key.startswith(of)), None) for key in keys]
    return None if None in stages else next((stage for stage in EXPORTS if stage in stages), None)


def reopen(rundir: RunDir, plan: Plan, recipe_text: str, shown: dict[str, Any], first: str) -> list[str]:
    """Give a run the recipe with other exports; gives the stages that have to be done again, `first` and after it."""
    names = [stage.name for stage in STAGES]
    again = [name for name in names[names.index(first) :] if rundir.done(name)]
    changed = changes(rundir, plan)
    for name in again:
        rundir.record(name).unlink()
    (rundir / "manifest.json").unlink(missing_ok=True)
    write(rundir, plan, recipe_text, shown)
    rundir.event("exports_changed", keys=changed, again=again)
    return again


def _values(rundir: RunDir) -> dict[str, Any]:
    try:
        return dict(read_json(rundir.recipe)["values"])
    except (OSError, ValueError, TypeError, KeyError):
        hint = "move that run away, or start a new one with another --runs"
        raise UsageError(f"{rundir.recipe} cannot be read", hint) from None


def _leaves(value: Any, at: Pointer = ()) -> Iterator[tuple[Pointer, Any]]:
    if isinstance(value, dict | list) and value:
        for part, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(below, (*at, part))
    else:
        yield at, value


def state(rundir: RunDir) -> dict[str, Any]:
    """`state` is new, running, interrupted, failed, partial (--only, --until) or done; `stage` the last one started.

    It is `unknown` where the file that says it cannot be read.
    """
    path = rundir / "status.json"
    try:
        return {"state": "new", "stage": None} | (dict(read_json(path)) if path.is_file() else {})
    except (OSError, ValueError, TypeError):
        return {"state": "unknown", "stage": None}


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
