"""`--smoke`: the same recipe with a tiny random model, a few rows and a few steps, on this machine's processor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import architecture as architectures
from . import resources
from .document import Document
from .errors import UsageError
from .modelref import ARCHITECTURES, locate
from .overrides import apply, set_value
from .position import Pointer, dotted
from .recipe import Gptq, Recipe
from .rules import there
from .templates import NAMES

SOURCE = "--smoke"
ROWS = 64
STEPS = 4
GROUP = 32  # weights; a row of a tiny model has 64
EITHER: tuple[tuple[Pointer, Pointer], ...] = (  # of which a recipe may have only one
    (("training", "num_epochs"), ("training", "max_steps")),
    (("training", "gradient_accumulation_steps"), ("training", "effective_batch_size")),
    (("optimizer", "warmup_ratio"), ("optimizer", "warmup_steps")),
)


def here(document: Document) -> Document:
    """The document on this machine's processor, so that what --set says of hardware is said of that."""
    hardware = document.value.get("hardware") if isinstance(document.value, dict) else None
    if not isinstance(hardware, dict) or hardware.get("accelerator") in ("cpu", None):
        return document
    return set_value(document, ("hardware",), {"accelerator": "cpu"}, SOURCE)


def shrink(document: Document, recipe: Recipe, assignments: Sequence[str]) -> tuple[Document, list[str]]:
    """The smaller document, and a line for each thing that was swapped; what --set says wins. Raises UsageError."""
    swaps = [(at, None if _other_said(document, at) else value) for at, value in _swaps(document, recipe)]
    for at, value in swaps:
        document = set_value(document, at, value, SOURCE)
    document = apply(document, assignments)
    kept = [(at, value) for at, value in swaps if at in document.values and document.values[at].source == SOURCE]
    return document, [f"{dotted(at)} = {json.dumps(value)}" for at, value in kept]


def architecture(base_model: str, revision: str | None = None) -> str:
    """The `model_type` of a model by its own files, or by the shipped catalogue for one that is not here.

    Raises UsageError.
    """
    known = architectures.named(base_model, revision)
    found = known.model_type if known else ""
    if found not in ARCHITECTURES:
        what = f"the architecture of {base_model} is " + (f"{found!r}, " if found else "not known without its files")
        hint = f"write --set model.base_model=tiny:llama (or {', '.join(ARCHITECTURES[1:])}) beside --smoke"
        raise UsageError(what + ("of which there is no tiny model" if found else ""), hint)
    return found


def _other_said(document: Document, at: Pointer) -> bool:
    """Whether --set gives a value to the key that `at` must then leave alone."""
    others = [one for pair in EITHER if at in pair for one in pair if one != at and one in document.values]
    return any(document.values[one].source.startswith("--set ") and _value(document, one) is not None for one in others)


def _value(document: Document, at: Pointer) -> Any:
    found = document.value
    for part in at:
        found = found[part]
    return found


def _swaps(document: Document, recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """Every key --smoke changes, with its value; `here` has changed the first of them."""
    yield ("name",), f"{recipe.name}-smoke"
    yield from _model(recipe)
    yield from _teacher(recipe)
    yield from _rows(recipe)
    yield from _length(recipe)
    yield from _evaluation(recipe)
    yield from _copies(recipe)
    place = document.values.get(("hardware",))
    if recipe.hardware.accelerator != "cpu" or (place is not None and place.source == SOURCE):
        yield ("hardware",), {"accelerator": "cpu"}
    if recipe.artifacts.dir:
        yield ("artifacts", "dir"), None


def _model(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    yield ("model", "base_model"), f"tiny:{architecture(recipe.model.base_model, recipe.model.revision)}"
    if recipe.model.trained is not None:
        yield ("model", "trained"), None
    words = recipe.model.tokenizer or recipe.model.base_model
    kept = locate(words).kind in ("folder", "gguf")
    yield ("model", "tokenizer"), words if kept else None
    if not kept and recipe.prompt.template in NAMES:
        yield ("prompt", "template"), "tokenizer"  # the tokenizer made on the spot knows one form
    yield ("model", "revision"), None
    yield ("model", "dtype"), "float32"
    if recipe.model.attn_implementation == "flash_attention_2":
        yield ("model", "attn_implementation"), "auto"
    if recipe.model.kernels == "liger":
        yield ("model", "kernels"), "auto"


def _teacher(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """A tiny one of its own architecture, or of the base model's where none is made of it; it fits any tokenizer."""
    if recipe.distillation is None:
        return
    try:
        made = architecture(recipe.distillation.teacher)
    except UsageError:
        made = architecture(recipe.model.base_model, recipe.model.revision)
    yield ("distillation", "teacher"), f"tiny:{made}"


def _rows(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """A few rows of each dataset; the shipped sample of its type, or of its name, where the file is not here."""
    for number, dataset in enumerate(recipe.datasets):
        yield ("datasets", number, "max_rows"), ROWS
        name = Path(dataset.path).name if dataset.type == "rows" else f"{dataset.type}.jsonl"
        sample = resources.samples() / name
        if not there(dataset.path) and sample.is_file():
            yield ("datasets", number, "path"), str(sample)
    yield ("split", "validation"), 0.25
    if recipe.split.test:
        yield ("split", "test"), 0.25
    yield ("prompt", "sequence_len"), min(recipe.prompt.sequence_len, 512)
    yield ("prompt", "truncation"), "left"


def _length(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    yield ("training", "num_epochs"), None
    yield ("training", "max_steps"), STEPS
    yield ("training", "save_steps"), STEPS // 2
    yield ("training", "logging_steps"), 1
    yield ("training", "micro_batch_size"), min(recipe.training.micro_batch_size, 2)
    yield ("training", "gradient_accumulation_steps"), min(recipe.training.gradient_accumulation_steps or 1, 2)
    yield ("training", "effective_batch_size"), None
    if recipe.optimizer.warmup_steps or recipe.optimizer.warmup_ratio:
        yield ("optimizer", "warmup_steps"), None
        yield ("optimizer", "warmup_ratio"), 0.25


def _evaluation(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    if recipe.evaluation.every_steps:
        yield ("evaluation", "every_steps"), STEPS // 2
    if recipe.evaluation.generate:
        yield ("evaluation", "generate", "rows"), 4
        yield ("evaluation", "generate", "max_new_tokens"), 16
    if recipe.evaluation.cross_validation:
        yield ("evaluation", "cross_validation", "folds"), 2


def _copies(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    for number, export in enumerate(recipe.quantization.export):
        if isinstance(export, Gptq):
            yield ("quantization", "export", number, "group_size"), min(export.group_size, GROUP)
        if export.calibration is not None:
            yield ("quantization", "export", number, "calibration", "samples"), min(export.calibration.samples, 8)
