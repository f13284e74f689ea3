"""`sysml-run RECIPE…`: the whole pipeline, one recipe after the other."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sysml_run import caches, doctor, machine, plan, planview, prepared, runs, summary
from sysml_run.document import Document
from sysml_run.errors import UsageError
from sysml_run.estimate import disk
from sysml_run.estimate.disk import Free
from sysml_run.estimate.verdict import verdict
from sysml_run.options import COMMANDS
from sysml_run.plan import Plan
from sysml_run.recipe import HardwareTpu, Recipe
from sysml_run.resolve import Resolved, build, exists
from sysml_run.rundir import RunDir
from sysml_run.wording import closest

from . import folds
from .load import load, ready
from .stages import finish, fitting, startable


def run(options: argparse.Namespace) -> int:
    """Run every recipe. Raises what stops a run; the runs before it stay."""
    names, wanted = recipes(options)
    if not names:
        raise UsageError("no recipe is named", "sysml-run recipes/quickstart.yaml, or sysml-run --help")
    checked = [load(Path(name), options) for name in names]
    for _, resolved in checked:
        equipped(resolved.recipe)
        ready(resolved)
        roomy(resolved, options)
    for document, resolved in checked:
        one(document, resolved, options, wanted)
    return 0


def recipes(options: argparse.Namespace) -> tuple[list[str], str | None]:
    """The recipes and the run to resume; `--resume RECIPE` means the newest run of that recipe.

    Raises UsageError for what is no file and looks like a command.
    """
    for name in options.recipes[:1]:
        command = closest(name, COMMANDS)
        if command is not None and not exists(name):
            raise UsageError(f"there is no recipe and no command {name!r}", f"did you mean sysml-run {command}?")
    if options.resume and options.resume.endswith((".yaml", ".yml")):
        return [options.resume, *options.recipes], ""
    return options.recipes, options.resume


def equipped(recipe: Recipe) -> None:
    """Check that this is the machine, or one of the machines, that the recipe is for. Raises UsageError."""
    lacking = doctor.lacking(recipe)
    if lacking:
        found = "; ".join(f"{check.name}: {check.found}" for check in lacking)
        hint = "add --hardware cpu --smoke to try every stage here, or see sysml-run doctor and sysml-run plan --target"
        raise UsageError(f"this machine cannot train the recipe: {found}", hint)
    nodes, names, targets = plan.machines(recipe, machine.look()), ("MACHINE_RANK", "SLURM_NODEID"), "slurm"
    if isinstance(recipe.hardware, HardwareTpu):
        names, targets = ("RANK", "WORLD_SIZE"), "gcloud"
    if nodes > 1 and not any(name in os.environ for name in names):
        hint = f"sysml-run plan --target {targets}|kubernetes|skypilot writes the job; by hand: export {names[0]}=0"
        hint += f" WORLD_SIZE={nodes}" if targets == "gcloud" else ""
        message = f"the recipe wants {nodes} machines, and nothing says which one this is"
        raise UsageError(message, f"{hint} and MASTER_ADDR, and start launch/train.sh of the run on the others")


def roomy(resolved: Resolved, options: argparse.Namespace) -> None:
    """Check that disk and memory suffice for the stages that are asked for. Raises UsageError."""
    here = machine.look()
    recipe = plan.settle(resolved, here).recipe
    target, hub = recipe.artifacts.dir, caches.hub_cache()
    free = Free(
        doctor.free(options.runs),
        None if doctor.same_disk(options.runs, hub) else doctor.free(hub),
        here.memory,
        target is not None and doctor.same_disk(options.runs, Path(target).expanduser()),
    )
    expected = verdict(recipe, here)
    host, started = expected.estimate.host if expected else 0, _started(recipe, options)
    for message, hint in disk.short(recipe, _stages(recipe, options), free, host, started=started):
        raise UsageError(message, hint)


def _started(recipe: Recipe, options: argparse.Namespace) -> bool:
    """Whether a run is gone on with, as far as can be seen before it is looked for."""
    newest = runs.all_runs(options.runs, recipe.name)[-1:]
    return options.resume is not None or any(runs.state(each)["state"] == "interrupted" for each in newest)


def _stages(recipe: Recipe, options: argparse.Namespace) -> list[str]:
    """As `plan.choose` takes them; names that are none of this run are refused there."""
    names = [stage.name for stage in plan.STAGES if stage.wanted(recipe)]
    last = names.index(options.until) if options.until in names else len(names) - 1
    return [name for name in names[: last + 1] if not options.only or name in options.only]


def one(document: Document, resolved: Resolved, options: argparse.Namespace, wanted: str | None) -> None:
    """Plan, make or find the run directory, run its stages, and print what came of it."""
    folder, only = runs.new_path(options.runs, resolved.recipe.name), options.only
    made = plan.make(resolved, machine.look(), str(folder), offline=options.offline)
    plan.choose(made, only, options.until)
    rundir, first = _resumed(options.runs, made, wanted)
    if folds.wanted(resolved.recipe):
        folds.run(document, resolved, options, rundir)
        return
    resolved = placed(resolved, runs.published(rundir, resolved.recipe.artifacts.dir))
    made = plan.make(resolved, machine.look(), str(rundir.path if rundir else folder), offline=options.offline)
    if rundir is None and only and resolved.recipe.model.trained:
        only = ["train", *only]  # which takes what is trained, and prepares the rows
    launches = plan.choose(made, only, options.until)
    if rundir is None:
        startable(launches)
        rundir = _fresh(RunDir(folder), made, document)
    if any(launch.stage == "train" and not rundir.done("train") for launch in launches):
        fitting(made, document.source)
    with runs.owned(rundir) as lock:
        if first is not None:
            _reopen(rundir, made, document, first)
        finish(rundir, made, launches, lock)
    sys.stdout.write(summary.summary(rundir) + "\n")


def placed(resolved: Resolved, published: str | None) -> Resolved:
    """With `artifacts.dir` as a whole path, so that it is the same folder wherever the run is resumed."""
    values = {**resolved.values, "artifacts": {**resolved.values["artifacts"], "dir": published}}
    return Resolved(build(values), values, resolved.sources)


def _resumed(folder: Path, made: Plan, wanted: str | None) -> tuple[RunDir | None, str | None]:
    """The run to go on with: the one asked for, or the newest if its user stopped it; None for a new run.

    Beside it, where the recipe asks for other exports than the run was started with, the first stage to do again.
    """
    first = None
    if wanted is None:
        found = runs.interrupted(folder, made)
        _say_passed_over(folder, made)
    else:
        found = runs.find(folder, made.recipe.name, wanted)
        changed = runs.changes(found, made)
        first = runs.exports(changed) if changed else None
        if changed and first is None:
            hint = "go on with the recipe as it was, or start a new run without --resume"
            raise UsageError(f"the recipe has changed since {found.path} was started: {', '.join(changed)}", hint)
    if found is not None:
        sys.stdout.write(f"going on with {found.path} ({runs.state(found)['state']})\n")
    return found, first


def _say_passed_over(folder: Path, made: Plan) -> None:
    """That the newest run cannot say whether it was stopped, so that a new one is started."""
    for newest in runs.all_runs(folder, made.recipe.name)[-1:]:
        if runs.state(newest)["state"] == "unknown":
            note = f"{newest / 'status.json'} cannot be read: that run is passed over, unless --resume names it"
            sys.stderr.write(f"note: {note}\n")


def _reopen(rundir: RunDir, made: Plan, document: Document, first: str) -> None:
    shown = planview.values(made, document.source, prepared.rows(made.recipe))
    again = runs.reopen(rundir, made, document.text, shown, first)
    sys.stdout.write(f"the exports have changed: {', '.join(again) or 'nothing done before'} to be done again\n")


def _fresh(rundir: RunDir, made: Plan, document: Document) -> RunDir:
    counted = prepared.rows(made.recipe)
    runs.write(rundir, made, document.text, planview.values(made, document.source, counted))
    sys.stdout.write(planview.text(made, counted, commands=False))
    return rundir
