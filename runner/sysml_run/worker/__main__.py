"""`python -m sysml_run.worker STAGE… RUN_DIR`: runs stages of one run and leaves their records."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sysml_run.errors import StageError, SysmlError
from sysml_run.recipe import Recipe
from sysml_run.resolve import build
from sysml_run.rundir import RunDir, lock, read_json, write_json

STAGES = ("prepare", "train", "evaluate", "merge", "package", "report")


def main(argv: Sequence[str]) -> int:
    """Exit code 0 done, 1 failed (with error.json in the run directory), 130 interrupted."""
    *stages, folder = argv
    rundir = RunDir(Path(folder).absolute())
    try:
        recipe = build(read_json(rundir.recipe)["values"])
        with alone(rundir):
            for stage in stages:
                run_stage(stage, recipe, rundir)
    except KeyboardInterrupt:
        return 130
    except SysmlError as error:
        leave(rundir, stages, error.message, error.hint)
        return 1
    except Exception as error:
        leave(rundir, stages, f"{type(error).__name__}: {error}", None)
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def alone(rundir: RunDir) -> Iterator[None]:
    """Hold the run for this process, which may outlive the command that started it. Raises StageError."""
    held = lock(rundir.at_work)
    if held is None:
        raise StageError(f"another process is at work in {rundir.path}", "wait, or stop it")
    try:
        yield
    finally:
        os.close(held)


def run_stage(stage: str, recipe: Recipe, rundir: RunDir) -> None:
    """Run one stage unless its record says that it is done; train prepares first where nobody has."""
    if stage not in STAGES:
        raise StageError(f"there is no stage {stage!r}", f"the stages: {', '.join(STAGES)}")
    if rundir.done(stage):
        print(f"{stage}: done before", flush=True)
        return
    if stage == "train" and not rundir.done("prepare"):
        run_stage("prepare", recipe, rundir)
    started, clock = datetime.now(UTC), time.monotonic()
    rundir.event("stage_started", stage=stage)
    record = importlib.import_module(f".{stage}", __package__).run(recipe, rundir)
    seconds = round(time.monotonic() - clock, 3)
    write_json(rundir.record(stage), {"started": started.isoformat(timespec="seconds"), "seconds": seconds, **record})
    rundir.event("stage_finished", stage=stage, seconds=seconds)


def leave(rundir: RunDir, stages: Sequence[str], message: str, hint: str | None) -> None:
    """Tell the front, and whoever runs this by hand, why it failed."""
    write_json(rundir.error, {"stages": list(stages), "message": message, "hint": hint})
    sys.stderr.write(f"error: {message}\n{hint or ''}\n")


def quiet() -> None:
    """Keep other libraries' notices out of the way; errors still show."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if __name__ == "__main__":
    quiet()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    raise SystemExit(main(sys.argv[1:]))
