"""`sysml-run plan --compare`: the recipe on several machines, a row for each."""

from __future__ import annotations

import argparse
import json
import sys

from sysml_run import compare, machine, overrides, prepared, validate
from sysml_run import document as documents
from sysml_run.compare import Compared
from sysml_run.errors import RecipeError, UsageError

from .load import examine, refuse


def run(options: argparse.Namespace) -> int:
    """Print the table. Raises UsageError for what goes on from one plan alone, RecipeError for an invalid recipe."""
    for name in ("fit", "write", "target", "hardware", "smoke"):
        if getattr(options, name):
            raise UsageError(f"--compare looks at several machines, --{name} at one", "leave one of the two out")
    document = overrides.apply(documents.load(options.recipe), options.set)
    refuse(validate.check(document))
    rows = [_on(name, options) for name in options.compare]
    if options.format == "json":
        value = {"recipe": document.source, "machines": compare.values(rows)}
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    else:
        sys.stdout.write(compare.text(rows))
    return 0


def _on(hardware: str, options: argparse.Namespace) -> Compared:
    """What is missing here may be there."""
    try:
        _, resolved = examine(documents.load(options.recipe), options.set, hardware)
    except RecipeError as error:
        return Compared(hardware, tuple(error.problems))
    return compare.compared(hardware, resolved, machine.look(), prepared.rows(resolved.recipe))
