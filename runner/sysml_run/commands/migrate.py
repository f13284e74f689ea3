"""`sysml-run migrate`: another trainer's configuration -> a recipe, and a list of what could not be carried."""

from __future__ import annotations

import argparse
import sys

from sysml_run import report
from sysml_run.errors import UsageError
from sysml_run.migration.convert import convert
from sysml_run.rundir import write_text

from .load import unwritable


def run(options: argparse.Namespace) -> int:
    """Recipe to --out and report to stdout; without --out recipe to stdout and report to stderr.

    Raises UsageError where --out exists, SysmlError where it cannot be made.
    """
    if options.out is not None and options.out.exists():
        raise UsageError(f"{options.out} is there already", "name a new file with --out")
    made = convert(options.config, options.tool, options.out)
    if options.out is None:
        sys.stdout.write(made.recipe)
        sys.stderr.write(_shown(made.report))
    else:
        try:
            write_text(options.out, made.recipe)
        except FileNotFoundError as error:
            raise unwritable(options.out, error) from None
        sys.stdout.write(_shown(f"{options.out} is written\n{made.report}"))
    sys.stderr.write(report.text(made.problems, report.wants_colour(sys.stderr)))
    return 0


def _shown(text: str) -> str:
    """What a terminal may be given of a file's values."""
    return "".join(f"{report.printable(line)}\n" for line in text.splitlines())
