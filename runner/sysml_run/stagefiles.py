"""What each stage of a run reads and writes: models and rows by name, the rest by its place in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .recipe import Recipe

Names = Callable[[Recipe], tuple[str, ...]]


@dataclass(frozen=True)
class Files:
    """Of one stage, for a recipe that has it."""

    inputs: Names
    outputs: Names


def _rows(recipe: Recipe) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dataset.path for dataset in recipe.datasets))


def _tokenizer(recipe: Recipe) -> str:
    return recipe.model.tokenizer or recipe.model.base_model


def _teacher(recipe: Recipe) -> tuple[str, ...]:
    return () if recipe.distillation is None else (recipe.distillation.teacher,)


def _rows_to_train_on(recipe: Recipe) -> tuple[str, ...]:
    return ("data",) if recipe.distillation is None else ("data", "data/teacher.json")


def _finished(recipe: Recipe) -> str:
    """Whole weights: merged ones where an adapter was trained."""
    return "model" if recipe.lora is None else "merged"


def _copies(recipe: Recipe) -> tuple[str, ...]:
    return ("quantized",) if recipe.quantization.export else ()


def _packages(recipe: Recipe) -> tuple[str, ...]:
    return ("package",) if recipe.artifacts.dir is None else ("package", recipe.artifacts.dir)


def _packed(recipe: Recipe) -> tuple[str, ...]:
    adapter = () if recipe.lora is None else ("model",)
    return (_finished(recipe), *adapter, *_copies(recipe), "evaluation.json")


FILES: Mapping[str, Files] = {
    "prepare": Files(lambda recipe: (*_rows(recipe), _tokenizer(recipe)), lambda _: ("data",)),
    "teacher": Files(lambda recipe: (*_teacher(recipe), "data"), lambda _: ("data/teacher.json",)),
    "train": Files(
        lambda recipe: (recipe.model.base_model, *_rows_to_train_on(recipe)),
        lambda _: ("model", "checkpoints", "metrics.jsonl"),
    ),
    "evaluate": Files(lambda recipe: (recipe.model.base_model, "model", "data"), lambda _: ("evaluation.json",)),
    "merge": Files(lambda recipe: (recipe.model.base_model, "model", "data"), lambda _: ("merged", "evaluation.json")),
    "quantize": Files(lambda recipe: (_finished(recipe), "data"), lambda _: ("quantized", "evaluation.json")),
    "package": Files(_packed, _packages),
    "report": Files(
        lambda _: ("evaluation.json", "metrics.jsonl", "data", "records"),
        lambda _: ("report.html", "figures", "manifest.json"),
    ),
}
