"""The stages of one run, and the state it is left in."""

from __future__ import annotations

from collections.abc import Sequence

from sysml_run import execute, manifest, runs
from sysml_run.backends.base import Launch
from sysml_run.plan import Plan
from sysml_run.rundir import RunDir


def finish(rundir: RunDir, made: Plan, launches: Sequence[Launch], lock: int) -> None:
    """Run what is not done yet of `launches`, which may be fewer than the plan's. Raises what stops a stage."""
    execute.run(launches, rundir, lock)
    if not all(rundir.done(launch.stage) for launch in made.launches):
        runs.set_state(rundir, "partial", launches[-1].stage)
        return
    if not (rundir / manifest.NAME).is_file():  # the last stage leaves it, unless it was stopped there
        manifest.write_run(rundir)
    runs.set_state(rundir, "done", None)
