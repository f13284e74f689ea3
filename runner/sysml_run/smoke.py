"""`--smoke`: the same recipe with a tiny random model, a few rows and a few steps, on this machine's processor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import resources
from .document import Document
from .errors import UsageError
from .modelref import ARCHITECTURES, locate
from .overrides import apply, set_value
from .position import Pointer, dotted
from .recipe import Recipe
from .rules import there

SOURCE = "--smoke"
ROWS = 64
STEPS = 4
EITHER: tuple[tuple[Pointer, Pointer], ...] = (  # of which a recipe may have only one
    (("training", "num_epochs"), ("training", "max_steps")),
    (("training", "gradient_accumulation_steps"), ("training", "effective_batch_size")),
    (("optimizer", "warmup_ratio"), ("optimizer", "warmup_steps")),
)


def shrink(document: Document, recipe: Recipe, assignments: Sequence[str]) -> tuple[Document, list[str]]:
    """The smaller document, and a line for each thing that was swapped; what --set says wins. Raises UsageError."""
    swaps = [(at, None if _other_said(document, at) else value) for at, value in _swaps(recipe)]
    for at, value in swaps:
        document = set_value(document, at, value, SOURCE)
    document = apply(document, assignments)
    kept = [(at, value) for at, value in swaps if at in document.values and document.values[at].source == SOURCE]
    return document, [f"{dotted(at)} = {json.dumps(value)}" for at, value in kept]


def architecture(base_model: str) -> str:
    """The `model_type` of a model by its own files, or by the shipped table for one that is not here.

    Raises UsageError.
    """
    ref = locate(base_model)
    if ref.kind == "tiny":
        return ref.where
    read = {"folder": _folder_architecture, "gguf": _gguf_architecture, "hub": _listed_architecture}
    found = read[ref.kind](ref.where)
    if found not in ARCHITECTURES:
        what = f"the architecture of {base_model} is " + (f"{found!r}, " if found else "not known without its files")
        hint = f"write --set model.base_model=tiny:llama (or {', '.join(ARCHITECTURES[1:])}) beside --smoke"
        raise UsageError(what + ("of which there is no tiny model" if found else ""), hint)
    return found


def _folder_architecture(folder: str) -> str:
    file = Path(folder) / "config.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def _listed_architecture(name: str) -> str:
    known: dict[str, str] = json.loads((resources.PACKAGE / "architectures.json").read_text(encoding="utf-8"))
    return known.get(name, "")


def _gguf_architecture(path: str) -> str:
    try:
        from gguf import GGUFReader

        fields = GGUFReader(path).fields
        name = str(fields["general.architecture"].contents())
    except ImportError as error:
        raise UsageError("reading a .gguf file takes the package gguf", "pip install 'sysml-run[train]'") from error
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{path} cannot be read as GGUF: {error}") from error
    experts = fields.get(f"{name}.expert_count")
    return "mixtral" if name == "llama" and experts is not None and experts.contents() else name


def _other_said(document: Document, at: Pointer) -> bool:
    """Whether --set gives a value to the key that `at` must then leave alone."""
    others = [one for pair in EITHER if at in pair for one in pair if one != at and one in document.values]
    return any(document.values[one].source.startswith("--set ") and _value(document, one) is not None for one in others)


def _value(document: Document, at: Pointer) -> Any:
    found = document.value
    for part in at:
        found = found[part]
    return found


def _swaps(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """Every key --smoke changes, with its value."""
    yield ("name",), f"{recipe.name}-smoke"
    yield from _model(recipe)
    yield from _rows(recipe)
    yield from _length(recipe)
    yield from _evaluation(recipe)
    if recipe.hardware.accelerator != "cpu":
        yield ("hardware",), {"accelerator": "cpu"}
    if recipe.artifacts.dir:
        yield ("artifacts", "dir"), None


def _model(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    yield ("model", "base_model"), f"tiny:{architecture(recipe.model.base_model)}"
    words = recipe.model.tokenizer or recipe.model.base_model
    yield ("model", "tokenizer"), words if locate(words).kind in ("folder", "gguf") else None
    yield ("model", "revision"), None
    yield ("model", "dtype"), "float32"
    if recipe.model.attn_implementation == "flash_attention_2":
        yield ("model", "attn_implementation"), "auto"


def _rows(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """A few rows of each dataset; the shipped sample of its type where the file is not here."""
    for number, dataset in enumerate(recipe.datasets):
        yield ("datasets", number, "max_rows"), ROWS
        sample = resources.samples() / f"{dataset.type}.jsonl"
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
