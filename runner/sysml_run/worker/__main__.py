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

from sysml_run import caches, failures, manifest, teachers
from sysml_run.errors import StageError, SysmlError
from sysml_run.recipe import Recipe
from sysml_run.resolve import build
from sysml_run.rundir import RunDir, lock, read_json, write_json

from . import gptq, ranks

STAGES = ("prepare", "teacher", "train", "evaluate", "merge", "quantize", "package", "report")
VIEW = "view"  # asked for by `data`; no stage of a run


def main(argv: Sequence[str]) -> int:
    """Exit code 0 done, 1 failed (with error.json in the run directory), 130 interrupted."""
    *stages, folder = argv
    rundir, recipe = RunDir(Path(folder).absolute()), None
    try:
        recipe = build(read_json(rundir.recipe)["values"])
        with alone(rundir):
            for stage in stages:
                run_stage(stage, recipe, rundir)
            conclude(rundir)
    except KeyboardInterrupt:
        if "train" in stages:
            interrupted(rundir)
        return 130
    except SysmlError as error:
        leave(rundir, stages, error.message, error.hint)
        return 1
    except Exception as error:
        written = read_json(rundir.recipe) if recipe else None
        several = "train" in stages and ranks.world() > 1
        leave(rundir, stages, *failures.words(error, written, several=several))
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def alone(rundir: RunDir) -> Iterator[None]:
    """Hold the run for this process, which may outlive the command that started it. Raises StageError.

    Of several that train together the first holds it.
    """
    if not ranks.first():
        yield
        return
    held = lock(rundir.at_work)
    if held is None:
        raise StageError(f"another process is at work in {rundir.path}", "wait, or stop it")
    rundir.error.unlink(missing_ok=True)
    try:
        yield
    finally:
        os.close(held)


def run_stage(stage: str, recipe: Recipe, rundir: RunDir) -> None:
    """Run one stage unless its record says that it is done; what training takes is made first where nobody has."""
    if stage not in (*STAGES, VIEW):
        raise StageError(f"there is no stage {stage!r}", f"the stages: {', '.join(STAGES)}")
    if stage != "quantize":
        gptq.hide()
    if not ranks.first():
        follow(stage, recipe, rundir)
        return
    if rundir.done(stage):
        print(f"{stage}: done before", flush=True)
        return
    for earlier in before(stage, recipe):
        if not rundir.done(earlier):
            run_stage(earlier, recipe, rundir)
    started, clock = datetime.now(UTC), time.monotonic()
    rundir.event("stage_started", stage=stage)
    record = importlib.import_module(f".{stage}", __package__).run(recipe, rundir)
    seconds = round(time.monotonic() - clock, 3)
    write_json(rundir.record(stage), {"started": started.isoformat(timespec="seconds"), "seconds": seconds, **record})
    rundir.event("stage_finished", stage=stage, seconds=seconds)


def before(stage: str, recipe: Recipe) -> tuple[str, ...]:
    """What this stage makes by itself: rows and, where there is a teacher, its predictions."""
    found = ("prepare", "teacher") if teachers.wanted(recipe) else ("prepare",)
    return {"teacher": ("prepare",), "train": found}.get(stage, ())


def conclude(rundir: RunDir) -> None:
    """Leave the run's manifest once every stage of its plan is done, whoever started the last one."""
    plan = rundir / "plan.json"
    stages = [launch["stage"] for launch in read_json(plan)["launch"]] if plan.is_file() else []
    if ranks.first() and stages and all(map(rundir.done, stages)):
        manifest.write_run(rundir)


def follow(stage: str, recipe: Recipe, rundir: RunDir) -> None:
    """Train with the first process, which alone prepares and writes records; other stages are its own."""
    if stage == "train" and not rundir.done(stage):
        ranks.waited_for(lambda: all(map(rundir.done, before(stage, recipe))))
        importlib.import_module(f".{stage}", __package__).run(recipe, rundir)


def interrupted(rundir: RunDir) -> None:
    """Tell the front that this run was stopped and can go on: `accelerate launch` does not pass on our exit code."""
    if ranks.first():
        write_json(rundir.error, {"interrupted": True})


def leave(rundir: RunDir, stages: Sequence[str], message: str, hint: str | None) -> None:
    """Tell the front, and whoever runs this by hand, why it failed; of several processes the first that does."""
    if not rundir.error.is_file():
        write_json(rundir.error, {"stages": list(stages), "message": message, "hint": hint})
    sys.stderr.write(f"error: {message}\n{hint or ''}\n")


def quiet() -> None:
    """Keep other libraries' notices out of the way; errors still show."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if __name__ == "__main__":
    quiet()
    caches.hand_token()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    ranks.tied()
    code = main(sys.argv[1:])
    if ranks.launched():
        ranks.leave(code)
    raise SystemExit(code)
