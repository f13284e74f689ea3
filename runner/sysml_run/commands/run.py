"""`sysml-run RECIPE…`: the whole pipeline, one recipe after the other."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sysml_run import doctor, execute, machine, manifest, plan, planview, runs, summary
from sysml_run.document import Document
from sysml_run.errors import UsageError
from sysml_run.options import COMMANDS
from sysml_run.plan import Plan
from sysml_run.recipe import Recipe
from sysml_run.resolve import Resolved, exists
from sysml_run.rundir import RunDir
from sysml_run.wording import closest

from .load import load, ready


def run(options: argparse.Namespace) -> int:
    """Run every recipe. Raises what stops a run; the runs before it stay."""
    names, wanted = recipes(options)
    if not names:
        raise UsageError("no recipe is named", "sysml-run recipes/quickstart.yaml, or sysml-run --help")
    checked = [load(Path(name), options) for name in names]
    for _, resolved in checked:
        equipped(resolved.recipe)
        ready(resolved)
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
    nodes = getattr(recipe.hardware, "nodes", 1)
    if nodes > 1 and not any(name in os.environ for name in ("MACHINE_RANK", "SLURM_NODEID")):
        hint = "sysml-run plan --target slurm|kubernetes|skypilot writes the job; by hand: export MACHINE_RANK=0"
        message = f"the recipe wants {nodes} machines, and nothing says which one this is"
        raise UsageError(message, f"{hint} and MASTER_ADDR, and start launch/train.sh of the run on the others")


def one(document: Document, resolved: Resolved, options: argparse.Namespace, wanted: str | None) -> None:
    """Plan, make or find the run directory, run its stages, and print what came of it."""
    folder = runs.new_path(options.runs, resolved.recipe.name)
    made = plan.make(resolved, machine.look(), str(folder), offline=options.offline)
    plan.choose(made, options.only, options.until)
    rundir = _resumed(options.runs, made, wanted)
    if rundir is not None:
        made = plan.make(resolved, machine.look(), str(rundir.path), offline=options.offline)
    launches = plan.choose(made, options.only, options.until)
    if rundir is None:
        if launches[0].stage not in ("prepare", "train"):
            first = launches[0].stage
            raise UsageError(f"{first} wants a run that has trained", f"add --resume to --only {first}")
        rundir = _fresh(RunDir(folder), made, document)
    with runs.owned(rundir) as lock:
        execute.run(launches, rundir, lock)
        if all(rundir.done(launch.stage) for launch in made.launches):
            manifest.write_run(rundir)
            runs.set_state(rundir, "done", None)
        else:
            runs.set_state(rundir, "partial", launches[-1].stage)
    sys.stdout.write(summary.summary(rundir) + "\n")


def _resumed(folder: Path, made: Plan, wanted: str | None) -> RunDir | None:
    """The run to go on with: the one asked for, or the newest if its user stopped it; None for a new run."""
    if wanted is None:
        found = runs.interrupted(folder, made)
    else:
        found = runs.find(folder, made.recipe.name, wanted)
        changed = runs.changes(found, made)
        if changed:
            hint = "go on with the recipe as it was, or start a new run without --resume"
            raise UsageError(f"the recipe has changed since {found.path} was started: {', '.join(changed)}", hint)
    if found is not None:
        sys.stdout.write(f"going on with {found.path} ({runs.state(found)['state']})\n")
    return found


def _fresh(rundir: RunDir, made: Plan, document: Document) -> RunDir:
    runs.write(rundir, made, document.text, planview.values(made, document.source))
    sys.stdout.write(planview.text(made, commands=False))
    return rundir
