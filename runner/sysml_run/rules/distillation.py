"""Distillation: a teacher that can teach this model, and that counts."""

from __future__ import annotations

from sysml_run import teachers
from sysml_run.errors import UsageError
from sysml_run.recipe import Recipe

from .finding import Finding, Findings


def teacher_counts(recipe: Recipe) -> Findings:
    if recipe.distillation is not None and recipe.distillation.alpha == 0:
        message = "at 0 the teacher is run over every row and counts for nothing"
        yield Finding("distillation.alpha", message, "write 0.5, or remove the section", "warning")


def teacher_is_another(recipe: Recipe) -> Findings:
    if recipe.distillation is not None and recipe.distillation.teacher == recipe.model.base_model:
        message = "is the base model itself, which holds training back to where it started"
        yield Finding("distillation.teacher", message, "name a larger model", "warning")


def teacher_vocabulary(recipe: Recipe) -> Findings:
    """A teacher's prediction is of the tokens that the model knows; what is not at hand the run looks at."""
    if recipe.distillation is None:
        return
    try:
        wrong = teachers.mismatch(recipe)
    except (UsageError, OSError, ValueError, KeyError, TypeError):  # said where the models are looked at
        return
    if wrong is not None:
        hint = "name a teacher with the tokenizer of the base model, mostly a larger one of its family"
        yield Finding("distillation.teacher", wrong, hint)


def teacher_on_tpu(recipe: Recipe) -> Findings:
    if recipe.distillation is not None and recipe.hardware.accelerator == "tpu":
        message = "is not built for TPUs, whose program would have another shape for every batch's answers"
        yield Finding("distillation", message, "remove the section, or train on gpu or cpu", at_key=True)
