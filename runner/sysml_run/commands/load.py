"""A recipe file and the command line's changes -> a checked, resolved recipe."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from sysml_run import document as documents
from sysml_run import manifest, overrides, report, rules, smoke, validate
from sysml_run.document import Document
from sysml_run.errors import Problem, RecipeError, UsageError
from sysml_run.modelref import locate
from sysml_run.resolve import Resolved, resolve

TRAINING = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "jinja2", "matplotlib")


def load(path: Path, options: argparse.Namespace) -> tuple[Document, Resolved]:
    """Read, change, check and resolve. Prints warnings; raises RecipeError or UsageError."""
    document = overrides.apply(documents.load(path), options.set)
    if options.hardware is not None:
        document = overrides.swap_hardware(document, options.hardware)
    refuse(validate.check(document))
    resolved = resolve(document)
    if options.smoke:
        document, notes = smoke.shrink(document, resolved.recipe, options.set)
        refuse(validate.check(document))
        resolved = resolve(document)
        sys.stdout.write("--smoke swaps:\n" + "".join(f"  {note}\n" for note in notes))
    refuse(rules.check(resolved.recipe, document, running=True))
    return document, resolved


def refuse(problems: Sequence[Problem]) -> None:
    """Print warnings; raise RecipeError if there is an error among the problems."""
    if any(problem.severity == "error" for problem in problems):
        raise RecipeError(problems)
    if problems:
        sys.stderr.write(report.text(problems))


def ready(resolved: Resolved) -> None:
    """Check what training needs before any of it starts: libraries and the models' files. Raises UsageError."""
    published = resolved.recipe.artifacts.dir
    refused = manifest.refusal(Path(published)) if published else None
    if refused:
        raise UsageError(f"artifacts.dir cannot be written: {refused}", "name another folder, or move that one away")
    model = resolved.recipe.model
    kinds = {locate(name).kind for name in (model.base_model, model.tokenizer) if name is not None}
    needed = (*TRAINING, *_optimizer_library(resolved), *(("gguf",) if "gguf" in kinds else ()))
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(f"not installed: {', '.join(absent)}", "pip install 'sysml-run[train]'")


def _optimizer_library(resolved: Resolved) -> tuple[str, ...]:
    return ("bitsandbytes",) if resolved.recipe.optimizer.name in ("adamw_8bit", "lion", "lion_8bit") else ()
