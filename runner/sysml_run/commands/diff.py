"""`sysml-run diff A [B]`: what changed between two recipes by meaning, and what follows from it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Mapping

from sysml_run import diff, diffview, machine, revisions
from sysml_run.diff import Diff
from sysml_run.document import Document
from sysml_run.errors import Problem, RecipeError, SysmlError
from sysml_run.resolve import Resolved

from .load import examine, look

FORMATS: Mapping[str, Callable[[Diff], str]] = {
    "text": diffview.text,
    "markdown": diffview.markdown,
    "json": diffview.as_json,
}


def run(options: argparse.Namespace) -> int:
    """Print the difference; exit code 0 whether or not there is one. The options' changes are made to the second.

    A file that only one side has stands against /dev/null, as it does in git. Raises RecipeError or UsageError.
    """
    second = options.a if options.b is None else options.b
    try:
        sys.stdout.write(_lone(options, second) or _compared(options, second))
    except SysmlError:
        if options.format == "markdown":
            sys.stdout.write(diffview.failed(options.a, second))
        raise
    return 0


def _lone(options: argparse.Namespace, second: str) -> str | None:
    """Of a recipe that is new, and valid, or that is deleted, whatever it was; None where both sides have one."""
    if second == os.devnull:
        with contextlib.suppress(RecipeError):
            revisions.read(options.a)
        return diffview.lone(options.a, "deleted", options.format)
    if options.a == os.devnull:
        look(second, options.set, options.hardware)
        return diffview.lone(second, "new", options.format)
    return None


def _compared(options: argparse.Namespace, second: str) -> str:
    (before, first), (after, changed) = _looked_at(options, second)
    here = machine.look()
    words = [f"--set {each}" for each in options.set] + [f"--hardware {options.hardware}"] * bool(options.hardware)
    found = diff.compare(
        diff.side(before.source, options.a, first, here),
        diff.side(after.source, " ".join([second, *words]), changed, here),
    )
    return FORMATS[options.format](found)


def _looked_at(options: argparse.Namespace, second: str) -> list[tuple[Document, Resolved]]:
    """Both recipes; what is named twice, such as standard input, is read once. Raises RecipeError for both."""
    read, looked, problems = dict[str, Document](), list[tuple[Document, Resolved]](), list[Problem]()
    for name, changes, hardware in ((options.a, (), None), (second, options.set, options.hardware)):
        try:
            read[name] = read[name] if name in read else revisions.read(name)
            looked.append(examine(read[name], changes, hardware))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return looked
