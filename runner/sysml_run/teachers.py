"""The teacher of a distillation: which model it is, and whether its vocabulary is that of the model that learns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from . import architecture, modelfiles
from .modelref import locate
from .recipe import Recipe

PADDING = 512  # rows by which publishers round the matrix of one vocabulary up, differently for each size of model


def wanted(recipe: Recipe) -> bool:
    """Whether anything is learned from a teacher; of a model trained elsewhere nothing is learned."""
    return recipe.distillation is not None and recipe.model.trained is None


def as_base(recipe: Recipe) -> Recipe:
    """The recipe with the teacher for its base model; a tiny teacher is made to fit the recipe's own tokenizer."""
    assert recipe.distillation is not None
    model, name = recipe.model, recipe.distillation.teacher
    words = (model.tokenizer or model.base_model) if name.startswith("tiny:") else None
    return replace(recipe, model=replace(model, base_model=name, tokenizer=words, revision=None, trained=None))


def mismatch(recipe: Recipe) -> str | None:
    """How the teacher's vocabulary differs, as far as files at hand tell; None where they tell nothing.

    Raises UsageError, OSError, ValueError, KeyError or TypeError for files that cannot be read.
    """
    teacher = as_base(recipe)
    ours, theirs = _words(recipe), _words(teacher)
    if ours is not None and theirs is not None:
        return stranger(ours, theirs)
    own, other = architecture.find(recipe.model), architecture.find(teacher.model)
    if own is None or other is None or not own.vocab_size or not other.vocab_size:
        return None
    if abs(own.vocab_size - other.vocab_size) <= PADDING:
        return None
    return f"knows {other.vocab_size:,} tokens where the model that learns knows {own.vocab_size:,}"


def stranger(ours: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    """What is wrong where a token of ours is not the same number in theirs, which may have more of them."""
    wrong = [token for token, number in ours.items() if theirs.get(token) != number]
    if not wrong:
        return None
    first = min(wrong, key=lambda token: ours[token])
    there = theirs.get(first)
    known = "unknown to it" if there is None else f"{there} in its vocabulary"
    return (
        f"has another vocabulary: {len(wrong):,} of {len(ours):,} tokens differ; {first!r}, {ours[first]}, is {known}"
    )


def _words(recipe: Recipe) -> dict[str, int] | None:
    """Number of each token by the tokenizer.json at hand; a .gguf file's tokenizer is looked at by the run."""
    if locate(recipe.model.tokenizer or recipe.model.base_model).kind == "gguf":
        return None
    folder = modelfiles.tokenizer(recipe)
    file = folder / "tokenizer.json" if folder else None
    return read(file) if file and file.is_file() else None


def read(file: Path) -> dict[str, int]:
    """Number of each token of a tokenizer.json, whose vocabulary is an object or, of unigrams, a list."""
    value = json.loads(file.read_text(encoding="utf-8"))
    words = value["model"]["vocab"]
    found = dict(words) if isinstance(words, dict) else {piece: number for number, (piece, _) in enumerate(words)}
    return found | {each["content"]: each["id"] for each in value.get("added_tokens", ())}
