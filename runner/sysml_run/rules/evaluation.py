"""What is measured, what is kept of it, and whether the run is long enough for it."""

from __future__ import annotations

from collections.abc import Sequence

from sysml_run.recipe import Recipe

from .bounds import in_words, length_key, number, steps
from .finding import Finding, Findings


def measured(recipe: Recipe) -> Findings:
    """What is decided by the validation loss needs it measured during training."""
    for name in ("best", "early_stopping"):
        if getattr(recipe.evaluation, name) is not None and recipe.evaluation.every_steps is None:
            message = "needs the validation loss during training, and it is not measured there"
            yield Finding(f"evaluation.{name}", message, "write evaluation.every_steps")


def best_is_saved(recipe: Recipe) -> Findings:
    every, save = recipe.evaluation.every_steps, recipe.training.save_steps
    if recipe.evaluation.best is not None and every is not None and save is not None and save % every:
        message = f"the best checkpoint can only be known where the loss is measured, every {number(every)} steps"
        yield Finding("training.save_steps", message, f"write {number(every)}")


def best_is_lost(recipe: Recipe) -> Findings:
    """transformers remembers the step of the best loss, and falls back on an older step where that one has no files.

    keep_checkpoints cannot lose it: the best and the newest checkpoint are never deleted.
    """
    every, save = recipe.evaluation.every_steps, recipe.training.save_steps
    if recipe.evaluation.best is not None and every and save and save > every and save % every == 0:
        message = (
            f"the loss is measured every {number(every)} steps, and the best one is lost where no checkpoint is saved"
        )
        yield Finding("training.save_steps", message, f"write {number(every)}", "warning")


def stops_at_worst(recipe: Recipe) -> Findings:
    evaluation = recipe.evaluation
    if evaluation.early_stopping is not None and evaluation.best is None and evaluation.every_steps is not None:
        message = "stops after evaluations without improvement and keeps those weights, not the best ones"
        yield Finding("evaluation.early_stopping", message, "add evaluation.best: {metric: eval_loss}", "warning")


def stops_in_time(recipe: Recipe) -> Findings:
    """The first evaluation sets the mark; one at the very end has nothing left to stop."""
    early, every, most = recipe.evaluation.early_stopping, recipe.evaluation.every_steps, steps(recipe)
    if early is None or every is None or most is None:
        return
    before = (most - 1) // every
    if every <= most and before < early.patience + 1:
        message = (
            f"early_stopping waits for {number(early.patience + 1)} evaluations and cannot act: "
            f"in {in_words(recipe, most)}, one every {number(every)}, there are {number(before)} before the end"
        )
        yield Finding(length_key(recipe), message, "measure more often, or remove early_stopping", "warning")


def measured_once(recipe: Recipe) -> Findings:
    every, most = recipe.evaluation.every_steps, steps(recipe)
    if every is not None and most is not None and every > most:
        message = f"the run has {in_words(recipe, most)}, so the loss is measured at its end only"
        yield Finding("evaluation.every_steps", message, "write a smaller number, or remove it", "warning")


def saved_once(recipe: Recipe) -> Findings:
    save, most = recipe.training.save_steps, steps(recipe)
    if save is not None and most is not None and save > most:
        message = f"the run has {in_words(recipe, most)}, so a stopped one has no checkpoint to go on from"
        yield Finding("training.save_steps", message, "write a smaller number, or remove it", "warning")


def metrics(recipe: Recipe) -> Findings:
    if recipe.evaluation.metrics and recipe.evaluation.generate is None:
        message = "metrics are counted on generated answers, and none are generated"
        yield Finding("evaluation.metrics", message, "write evaluation.generate: {rows: 32}")


def said_twice(recipe: Recipe) -> Findings:
    """Of lists whose items are names or what they name: the second of two that are the same."""
    targets = recipe.lora.target_modules if recipe.lora else ()
    lists: dict[str, Sequence[object]] = {"evaluation.metrics": recipe.evaluation.metrics, "tracking": recipe.tracking}
    lists["lora.target_modules"] = targets if isinstance(targets, tuple) else ()
    for key, items in lists.items():
        for at, item in enumerate(items):
            if item in items[:at]:
                yield Finding(f"{key}.{at}", "stands in the list already", "remove it")
