"""`sysml-run plan`: everything that would run, on screen, as JSON, or as files that run by hand."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from sysml_run import machine, plan, planview, runs
from sysml_run.errors import UsageError
from sysml_run.rundir import RunDir

from .load import load, ready


def run(options: argparse.Namespace) -> int:
    """Print the plan; with --write also lay out a run directory."""
    with redirect_stdout(sys.stderr if options.format == "json" else sys.stdout):
        document, resolved = load(options.recipe, options)
    folder = (options.write or runs.new_path(Path("runs"), resolved.recipe.name)).absolute()
    made = plan.make(resolved, machine.look(), str(folder), offline=options.offline)
    shown = planview.values(made, document.source)
    if options.write:
        ready(resolved)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder} is not an empty folder", "name a new folder")
        runs.write(RunDir(folder), made, document.text, shown)
    as_json = options.format == "json"
    sys.stdout.write(json.dumps(shown, indent=2) + "\n" if as_json else planview.text(made, commands=True))
    return 0
