"""Quantization, and the libraries that exports and trackers take."""

from __future__ import annotations

import importlib.util
import json

from sysml_run import exports, modelfiles, needs, pretokenizers
from sysml_run.errors import UsageError
from sysml_run.recipe import Gguf, Gptq, Recipe
from sysml_run.unbuilt import unbuilt

from .finding import Finding, Findings
from .model import known


def quantized_base(recipe: Recipe) -> Findings:
    load = recipe.quantization.load
    if load is not None and recipe.lora is None:
        message = f"weights held in {'4' if load == 'nf4' else '8'} bits cannot be trained, only adapters beside them"
        yield Finding("quantization.load", message, "add lora: {r: 16}, or remove it for a full fine-tune")


def export_tools(recipe: Recipe) -> Findings:
    for at, export in enumerate(recipe.quantization.export):
        what = f"export to {export.method}"
        yield from _absent(f"quantization.export.{at}.method", what, exports.libraries(export))


def export_twice(recipe: Recipe) -> Findings:
    names = [exports.name(export) for export in recipe.quantization.export]
    for at, name in enumerate(names):
        if name in names[:at]:
            yield Finding(f"quantization.export.{at}.method", f"a copy {name} is made already", "remove one of them")


def export_model(recipe: Recipe) -> Findings:
    """The architecture of the base model, where it is known, is one that the exporter knows."""
    found = known(recipe) if recipe.quantization.export else None
    for at, export in enumerate(recipe.quantization.export):
        can = exports.models(export)
        if found is not None and found.model_type and found.model_type not in can:
            message = f"{found.model_type} models are not exported to {export.method}"
            yield Finding(f"quantization.export.{at}.method", message, f"remove it; known: {', '.join(can)}")


def export_groups(recipe: Recipe) -> Findings:
    """A GPTQ group is of a size that kernels know; rows of whole groups are read by all of them."""
    found = known(recipe) if recipe.quantization.export else None
    widths = exports.widths(found) if found is not None else ()
    for at, export in enumerate(recipe.quantization.export):
        if isinstance(export, Gptq):
            where, size = f"quantization.export.{at}.group_size", export.group_size
            fitting = [group for group in exports.GROUPS if not any(width % group for width in widths)]
            odd = [width for width in widths if width % size]
            group = max((each for each in fitting if each <= size), default=max(fitting, default=0))
            if size not in exports.GROUPS:
                yield Finding(where, "no kernel reads groups of this size", f"write {group or exports.GROUPS[0]}")
            elif odd:
                message = f"rows of {odd[0]} weights are not whole groups of {size}: torch's own kernel computes it"
                hint = f"write {group}, which fast kernels read too" if group else None
                yield Finding(where, message, hint, "warning", or_at=f"quantization.export.{at}.method")


def export_weighed(recipe: Recipe) -> Findings:
    """An importance matrix is for types whose values are searched for; the others are rounded, or copied."""
    for at, export in enumerate(recipe.quantization.export):
        if isinstance(export, Gguf) and export.calibration is not None and export.type not in exports.K_QUANTS:
            hint = f"remove it, or write type: {exports.K_QUANTS[0]}; K-quants are {', '.join(exports.K_QUANTS)}"
            yield Finding(f"quantization.export.{at}.calibration", f"does nothing for {export.type}, no K-quant", hint)


def export_tokenizer(recipe: Recipe) -> Findings:
    """llama.cpp has a tokenizer like the model's, where that is at hand."""
    wanted = [at for at, export in enumerate(recipe.quantization.export) if isinstance(export, Gguf)]
    try:
        folder = modelfiles.tokenizer(recipe) if wanted else None
        value = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) if folder else None
        unknown = value is not None and pretokenizers.splitting(value) is None
    except (UsageError, OSError, ValueError, KeyError, TypeError):  # said where the model is looked at
        return
    for at in wanted if unknown else ():
        message = "llama.cpp is not known here to have a tokenizer like this model's"
        yield Finding(f"quantization.export.{at}.method", message, "remove it", later=True)


def trackers(recipe: Recipe) -> Findings:
    for at, name in enumerate(recipe.tracking):
        yield from _absent(f"tracking.{at}", f"tracking with {name}", (name,))


def metric_tools(recipe: Recipe) -> Findings:
    """What scores answers beyond what Python brings."""
    for at, metric in enumerate(recipe.evaluation.metrics):
        if isinstance(metric, str) and metric in needs.METRICS:
            yield from _absent(f"evaluation.metrics.{at}", metric, (needs.METRICS[metric],))


def not_built(recipe: Recipe) -> Findings:
    for where, message, hint in unbuilt(recipe):
        yield Finding(where, message, hint, later=True)


def _absent(at: str, what: str, libraries: tuple[str, ...]) -> Findings:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        commands = dict.fromkeys(needs.command(name) for name in missing)
        message = f"{what} takes {' and '.join(missing)}, not installed here"
        yield Finding(at, message, " && ".join(commands), later=True)
