"""`--smoke`: the same recipe with a tiny random model, a few rows and a few steps, on this machine's processor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import resources
from .document import Document
from .errors import UsageError
from .modelref import locate
from .overrides import set_value
from .position import Pointer
from .recipe import Recipe

SOURCE = "--smoke"
ROWS = 64
STEPS = 4


def shrink(document: Document, recipe: Recipe) -> tuple[Document, list[str]]:
    """The smaller document, and a line for each thing that was swapped. Raises UsageError."""
    notes = []
    for pointer, value in _swaps(recipe):
        document = set_value(document, pointer, value, SOURCE)
        notes.append(f"{'.'.join(map(str, pointer))} = {json.dumps(value)}")
    return document, notes


def architecture(base_model: str) -> str:
    """The `model_type` of a model by its own files, or by the shipped table for one that is not here.

    Raises UsageError.
    """
    ref = locate(base_model)
    if ref.kind == "tiny":
        return ref.where
    if ref.kind == "folder":
        return str(json.loads((ref.path / "config.json").read_text(encoding="utf-8"))["model_type"])
    if ref.kind == "gguf":
        return _gguf_architecture(ref.path)
    known: dict[str, str] = json.loads((resources.PACKAGE / "architectures.json").read_text(encoding="utf-8"))
    if ref.where not in known:
        hint = "write --set model.base_model=tiny:llama (or mistral, mixtral, qwen2) beside --smoke"
        raise UsageError(f"the architecture of {ref.where} is not known without its files", hint)
    return known[ref.where]


def _gguf_architecture(path: Path) -> str:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    name = str(fields["general.architecture"].contents())
    return "mixtral" if f"{name}.expert_count" in fields else name


def _swaps(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """Every key --smoke changes, with its value."""
    yield ("name",), f"{recipe.name}-smoke"
    yield from _model(recipe)
    yield from _rows(recipe)
    yield from _length(recipe)
    if recipe.optimizer.warmup_steps or recipe.optimizer.warmup_ratio:
        yield ("optimizer", "warmup_steps"), None
        yield ("optimizer", "warmup_ratio"), 0.25
    if recipe.evaluation.every_steps:
        yield ("evaluation", "every_steps"), STEPS // 2
    if recipe.evaluation.generate:
        yield ("evaluation", "generate"), {"rows": 4, "max_new_tokens": 16}
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


def _rows(recipe: Recipe) -> Iterator[tuple[Pointer, Any]]:
    """A few rows of each dataset; the shipped sample of its type where the file is not here."""
    for number, dataset in enumerate(recipe.datasets):
        yield ("datasets", number, "max_rows"), ROWS
        sample = resources.samples() / f"{dataset.type}.jsonl"
        if not any(Path("/").glob(dataset.path.lstrip("/"))) and sample.is_file():
            yield ("datasets", number, "path"), str(sample)
    yield ("split", "validation"), 0.25
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
