"""`sysml-run plan`: everything that would run and whether it fits, on screen, as JSON, as files, or as a job."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from sysml_run import machine, outlook, plan, planview, prepared, runs
from sysml_run.errors import UsageError
from sysml_run.estimate.verdict import verdict
from sysml_run.plan import Plan
from sysml_run.resolve import Resolved
from sysml_run.rundir import RunDir, write_text
from sysml_run.targets import TARGETS, Target, job

from .load import load, ready


def run(options: argparse.Namespace) -> int:
    """Print the plan, or the job; with --write also lay out a run directory, the job in its `launch`."""
    if options.compare:
        from . import machines

        return machines.run(options)
    if options.fit and (options.target or options.write):
        raise UsageError("--fit looks for another recipe, and --write and --target take this one", "leave --fit out")
    target = TARGETS[options.target] if options.target else None
    as_json = options.format == "json"
    with redirect_stdout(sys.stderr if target or as_json else sys.stdout):
        document, resolved = load(options.recipe, options, here=options.write is not None)
    if options.write or target:
        from . import folds

        folds.refuse(resolved.recipe, "--target" if target else "--write")
    folder = (options.write or runs.new_path(Path("runs"), resolved.recipe.name)).absolute()
    place, here = str(folder), machine.look()
    if target:
        place, here = target.run(folder, resolved.recipe.name), target.machine(here)
    made = plan.make(resolved, here, place, offline=options.offline)
    counted = prepared.rows(made.recipe)
    traced = _traced(made) if options.trace else None
    if not (target or as_json or options.write):
        sys.stdout.write(planview.text(made, counted, commands=not options.fit))
        sys.stdout.write(f"\n{_fit(made, as_json=False)}" if options.fit else "")
        sys.stdout.write(f"\n{traced.text()}" if traced else "")
        return 0
    shown = planview.values(made, document.source, counted)
    if traced:
        shown |= traced.values(shown["memory"])
    text = target.render(job(made, shown, document.text, place, folder)) if target else None
    if options.write:
        _ready(folder, resolved, target)
        runs.write(RunDir(folder), made, document.text, shown)
        if target and text:
            write_text(folder / target.file, text)
    if as_json:
        more = ({"job": text} if text else {}) | ({"fit": _fit(made, as_json=True)} if options.fit else {})
        sys.stdout.write(json.dumps({**shown, **more}, indent=2) + "\n")
    elif target and text:
        sys.stdout.write(f"{target.submit} {shlex.quote(str(folder / target.file))}\n" if options.write else text)
    else:
        sys.stdout.write(planview.text(made, counted, commands=True))
    return 0


def _traced(made: Plan) -> Any:
    """The memory of one step as it was traced, beside the closed form's."""
    from sysml_run import tracing

    return tracing.look(made)


def _fit(made: Plan, *, as_json: bool) -> Any:
    """What makes the plan fit, in words or as values; null, or why, where that is not known."""
    from sysml_run import fit, fitview

    found = fit.find(made, made.machine)
    if found is None:
        why = outlook.NO_CARD if verdict(made.recipe, made.machine) else outlook.NO_MODEL
        return None if as_json else f"what would fit is not known: {why}\n"
    return fitview.values(found) if as_json else fitview.text(found)


def _ready(folder: Path, resolved: Resolved, target: Target | None) -> None:
    """Refuse a folder that holds something, and what a run here would lack. Raises UsageError."""
    if target is None or target.shared:
        ready(resolved)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder", "name a new folder")
