"""The stages of one run: whether they can start, and the state they leave it in."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sysml_run import execute, manifest, outlook, runs
from sysml_run.backends.base import Launch
from sysml_run.errors import UsageError
from sysml_run.estimate.verdict import verdict
from sysml_run.plan import Plan
from sysml_run.rundir import RunDir


def startable(launches: Sequence[Launch]) -> None:
    """Check that the first stage of a new run is one that needs no other. Raises UsageError."""
    if launches[0].stage not in ("prepare", "teacher", "train"):
        hint = f"add --resume to --only {launches[0].stage}, or name a model trained elsewhere with model.trained"
        raise UsageError(f"{launches[0].stage} wants a run that has trained", hint)


def fitting(made: Plan, source: str) -> None:
    """Warn where training is not expected to fit its device; the estimate has a band, so nothing is refused."""
    found = verdict(made.recipe, made.machine)
    if found is not None and found.word == "does not fit":
        sys.stderr.write(f"warning: {outlook.judged(found)}\n  sysml-run plan {source} --fit says what would\n")


def finish(rundir: RunDir, made: Plan, launches: Sequence[Launch], lock: int) -> None:
    """Run what is not done yet of `launches`, which may be fewer than the plan's. Raises what stops a stage."""
    execute.run(launches, rundir, lock)
    if not all(rundir.done(launch.stage) for launch in made.launches):
        runs.set_state(rundir, "partial", launches[-1].stage)
        return
    if not (rundir / manifest.NAME).is_file():  # the last stage leaves it, unless it was stopped there
        manifest.write_run(rundir)
    runs.set_state(rundir, "done", None)
