"""A recipe file and the command line's changes -> a checked, resolved recipe."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from sysml_run import document as documents
from sysml_run import needs, overrides, report, rules, smoke, validate, verification
from sysml_run.document import Document
from sysml_run.errors import Problem, RecipeError, SysmlError, UsageError
from sysml_run.modelref import locate, trained
from sysml_run.resolve import Resolved, resolve


def load(path: Path, options: argparse.Namespace, *, here: bool = True) -> tuple[Document, Resolved]:
    """Read, change, check and resolve. Prints warnings; raises RecipeError or UsageError.

    Models and rows must be `here`, else their absence is a warning.
    """
    document = documents.load(path)
    document = moved(smoke.here(document) if options.smoke else document, options.set, options.hardware)
    refuse(validate.check(document))
    resolved = resolve(document)
    if options.smoke:
        document, notes = smoke.shrink(document, resolved.recipe, options.set)
        refuse(validate.check(document))
        resolved = resolve(document)
        sys.stdout.write("--smoke swaps:\n" + "".join(f"  {note}\n" for note in notes))
    refuse(rules.check(resolved.recipe, document, running=True, here=here))
    return document, resolved


def look(name: str, changes: Sequence[str], hardware: str | None) -> tuple[Document, Resolved]:
    """A recipe, `-` or `path@rev` that is to be looked at, not run: what is missing here is no error.

    Prints no warnings. Raises RecipeError or UsageError.
    """
    from sysml_run import revisions  # whose git wants what costs a tenth of a plan to import

    return examine(revisions.read(name), changes, hardware)


def examine(read: Document, changes: Sequence[str], hardware: str | None) -> tuple[Document, Resolved]:
    """The same for a document that has been read."""
    document = moved(read, changes, hardware)
    found = validate.check(document)
    if not any(problem.severity == "error" for problem in found):
        resolved = resolve(document)
        found = rules.check(resolved.recipe, document, running=False)
        if not any(problem.severity == "error" for problem in found):
            return document, resolved
    raise RecipeError([problem for problem in found if problem.severity == "error"])


def moved(document: Document, changes: Sequence[str], hardware: str | None) -> Document:
    """With another hardware section, of which --set may then change keys. Raises UsageError."""
    swapped = document if hardware is None else overrides.swap_hardware(document, hardware)
    return overrides.apply(swapped, changes)


def refuse(problems: Sequence[Problem]) -> None:
    """Print warnings; raise RecipeError if there is an error among the problems."""
    if any(problem.severity == "error" for problem in problems):
        raise RecipeError(problems)
    if problems:
        sys.stderr.write(report.text(problems, report.wants_colour(sys.stderr)))


def unwritable(file: Path, error: OSError) -> SysmlError:
    """Of a folder that takes no new files, which Linux calls "no such file"; elsewhere that is a fault of ours."""
    return SysmlError(f"{file} cannot be written: {error.strerror}", "name a file in another folder")


def ready(resolved: Resolved) -> None:
    """Check what training needs before any of it starts: libraries and the models' files. Raises UsageError."""
    published = resolved.recipe.artifacts.dir
    try:
        refused = verification.refusal(Path(published).expanduser()) if published else None
    except RuntimeError as error:  # ~NAME of no user
        raise UsageError(f"artifacts.dir: {error}", "write the folder out") from None
    if refused:
        raise UsageError(f"artifacts.dir cannot be written: {refused}", "name another folder, or move that one away")
    for name in (resolved.recipe.model.base_model, resolved.recipe.model.tokenizer):
        if name is not None:
            locate(name)
    if resolved.recipe.model.trained is not None:
        trained(resolved.recipe.model.trained)
    absent = [name for name in needs.libraries(resolved.recipe) if importlib.util.find_spec(name) is None]
    if absent:
        mends = dict.fromkeys(needs.look(name, needs.extra(resolved.recipe)).install for name in absent)
        raise UsageError(f"not installed: {', '.join(absent)}", "\n".join(mends))
