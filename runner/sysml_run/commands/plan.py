"""`sysml-run plan`: everything that would run, on screen, as JSON, as files that run by hand, or as a cluster's job."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

from sysml_run import machine, plan, planview, prepared, runs
from sysml_run.errors import UsageError
from sysml_run.resolve import Resolved
from sysml_run.rundir import RunDir, write_text
from sysml_run.targets import TARGETS, Target, job

from .load import load, ready


def run(options: argparse.Namespace) -> int:
    """Print the plan, or the job; with --write also lay out a run directory, the job in its `launch`."""
    target = TARGETS[options.target] if options.target else None
    as_json = options.format == "json"
    with redirect_stdout(sys.stderr if target or as_json else sys.stdout):
        document, resolved = load(options.recipe, options)
    folder = (options.write or runs.new_path(Path("runs"), resolved.recipe.name)).absolute()
    place, here = str(folder), machine.look()
    if target:
        place, here = target.run(folder, resolved.recipe.name), target.machine(here)
    made = plan.make(resolved, here, place, offline=options.offline)
    counted = prepared.rows(made.recipe)
    shown = planview.values(made, document.source, counted.rows["train"] if counted else None)
    text = target.render(job(made, shown, document.text, place, folder)) if target else None
    if options.write:
        _ready(folder, resolved, target)
        runs.write(RunDir(folder), made, document.text, shown)
        if target and text:
            write_text(folder / target.file, text)
    if as_json:
        sys.stdout.write(json.dumps({**shown, **({"job": text} if text else {})}, indent=2) + "\n")
    elif target and text:
        sys.stdout.write(f"{target.submit} {shlex.quote(str(folder / target.file))}\n" if options.write else text)
    else:
        sys.stdout.write(planview.text(made, commands=True))
    return 0


def _ready(folder: Path, resolved: Resolved, target: Target | None) -> None:
    """Refuse a folder that holds something, and what a run here would lack. Raises UsageError."""
    if target is None or target.shared:
        ready(resolved)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder", "name a new folder")
