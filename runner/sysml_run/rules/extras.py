"""Quantization, distillation, and the libraries that exports and trackers take."""

from __future__ import annotations

import importlib.util

from sysml_run import needs
from sysml_run.recipe import Gguf, Gptq, Recipe
from sysml_run.unbuilt import unbuilt

from .finding import Finding, Findings

PLAIN_GGUF = ("F32", "F16", "BF16", "Q8_0")  # the gguf package writes these itself; the others take llama.cpp


def quantized_base(recipe: Recipe) -> Findings:
    load = recipe.quantization.load
    if load is not None and recipe.lora is None:
        message = f"weights held in {'4' if load == 'nf4' else '8'} bits cannot be trained, only adapters beside them"
        yield Finding("quantization.load", message, "add lora: {r: 16}, or remove it for a full fine-tune")


def teacher_counts(recipe: Recipe) -> Findings:
    if recipe.distillation is not None and recipe.distillation.alpha == 0:
        message = "at 0 the teacher is computed in every step and counts for nothing"
        yield Finding("distillation.alpha", message, "write 0.5, or remove the section", "warning")


def teacher_is_another(recipe: Recipe) -> Findings:
    if recipe.distillation is not None and recipe.distillation.teacher == recipe.model.base_model:
        message = "is the base model itself, which holds training back to where it started"
        yield Finding("distillation.teacher", message, "name a larger model", "warning")


def export_tools(recipe: Recipe) -> Findings:
    for at, export in enumerate(recipe.quantization.export):
        yield from _absent(f"quantization.export.{at}.method", f"export to {export.method}", _tools(export))


def trackers(recipe: Recipe) -> Findings:
    for at, name in enumerate(recipe.tracking):
        yield from _absent(f"tracking.{at}", f"tracking with {name}", (name,))


def not_built(recipe: Recipe) -> Findings:
    for where, message, hint in unbuilt(recipe):
        yield Finding(where, message, hint, later=True)


def _tools(export: Gguf | Gptq) -> tuple[str, ...]:
    if isinstance(export, Gptq):
        return ("gptqmodel",)
    return ("gguf",) if export.type in PLAIN_GGUF else ("gguf", "llama_cpp")


def _absent(at: str, what: str, libraries: tuple[str, ...]) -> Findings:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        commands = [needs.command(name) for name in missing]
        message = f"{what} takes {' and '.join(missing)}, not installed here"
        yield Finding(at, message, " && ".join(commands), later=True)
