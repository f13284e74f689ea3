"""`sysml-run validate`: every problem of every file."""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sysml_run import document as documents
from sysml_run import report, rules
from sysml_run import validate as checks
from sysml_run.document import DASH, SUFFIXES
from sysml_run.errors import STDIN, Problem, RecipeError, UsageError
from sysml_run.resolve import exists, resolve

FORMATS = {"text": report.files_text, "json": report.files_json, "github": report.files_github}


def run(options: argparse.Namespace) -> int:
    """Exit code 2 when any file has an error (with --strict: or a warning), 0 when none has."""
    found = {STDIN if name == DASH else name: problems(name) for name in names(options.recipes)}
    colour = report.wants_colour(sys.stdout)
    sys.stdout.write(FORMATS[options.format](found, colour))
    fatal = ("error", "warning") if options.strict else ("error",)
    return 2 if any(problem.severity in fatal for each in found.values() for problem in each) else 0


def names(given: Sequence[str]) -> list[str]:
    """The files meant, each once: a folder stands for the recipes below it, a pattern for what it matches.

    Raises UsageError for a folder or a pattern that holds none, and for an empty name.
    """
    return list(dict.fromkeys(name for one in given for name in _files(one)))


def problems(name: str) -> list[Problem]:
    """Everything wrong with one recipe, in file order."""
    try:
        document = documents.stdin() if name == DASH else documents.load(Path(name))
    except RecipeError as error:
        return list(error.problems)
    found = checks.check(document)
    if any(problem.severity == "error" for problem in found):
        return found
    return [*found, *rules.check(resolve(document).recipe, document, running=False)]


def _files(name: str) -> Iterator[str]:
    if not name:
        raise UsageError(
            "no recipe at '': the name is empty", "name a recipe, a folder or a pattern, or - for standard input"
        )
    path = Path(name)
    if name != DASH and path.is_dir():
        yield from _some(sorted(str(file) for file in path.rglob("*") if _recipe(file, path)), name)
    elif name != DASH and glob.has_magic(name) and not exists(name):
        yield from _some(sorted(glob.glob(name, recursive=True)), name)  # noqa: PTH207 - keeps the name as it was written
    else:
        yield name


def _recipe(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix in SUFFIXES and not hidden and file.is_file()


def _some(found: list[str], name: str) -> list[str]:
    if not found:
        raise UsageError(f"no recipe at {name}", f"recipes are files that end in {' or '.join(SUFFIXES)}")
    return found
