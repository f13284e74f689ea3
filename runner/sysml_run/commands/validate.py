"""`sysml-run validate`: every problem of every file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sysml_run import document as documents
from sysml_run import report, rules
from sysml_run import validate as checks
from sysml_run.errors import Problem, RecipeError
from sysml_run.resolve import resolve


def run(options: argparse.Namespace) -> int:
    """Exit code 2 when any file has an error, 0 when none has."""
    found = {str(path): problems(path) for path in options.recipes}
    show = {"text": report.files_text, "json": report.files_json}[options.format]
    sys.stdout.write(show(found))
    return 2 if any(problem.severity == "error" for each in found.values() for problem in each) else 0


def problems(path: Path) -> list[Problem]:
    """Everything wrong with one recipe, in file order."""
    try:
        document = documents.load(path)
    except RecipeError as error:
        return list(error.problems)
    found = checks.check(document)
    if any(problem.severity == "error" for problem in found):
        return found
    return [*found, *rules.check(resolve(document).recipe, document, running=False)]
