"""How many steps a run makes, and the learning rate at each: the arithmetic of transformers' Trainer and schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .recipe import Optimizer, Recipe

PLATEAU = "reduce_lr_on_plateau"


@dataclass(frozen=True)
class Steps:
    """Optimizer steps; `per_epoch` is None where the rows are not counted."""

    per_epoch: int | None
    total: int
    warmup: int


def steps(rows: int | None, batch: Mapping[str, int], recipe: Recipe) -> Steps | None:
    """Steps over `rows` training rows in the batches of `plan.batch`; None where that takes a count that is not known.

    Rounds as transformers' Trainer does: a last micro batch of fewer rows counts, except on a TPU, and so does a step
    of fewer micro batches. Of packed rows the number is not known before they are packed.
    """
    training, dropping = recipe.training, recipe.hardware.accelerator == "tpu"
    each = None if rows is None or recipe.prompt.packing else _per_epoch(rows, batch, dropping=dropping)
    if training.max_steps is not None:
        total = training.max_steps
    elif each is not None:
        total = math.ceil((training.num_epochs or 1.0) * each)
    else:
        return None
    return Steps(each, total, warmup(recipe.optimizer, total))


def _per_epoch(rows: int, batch: Mapping[str, int], *, dropping: bool) -> int:
    if dropping:
        return max(1, math.ceil(rows // (batch["micro"] * batch["world_size"]) / batch["accumulation"]))
    micro_batches = math.ceil(math.ceil(rows / batch["micro"]) / batch["world_size"])
    return max(1, math.ceil(micro_batches / batch["accumulation"]))


def warmup(optimizer: Optimizer, total: int) -> int:
    """Steps in which the learning rate rises from zero; a share of the steps is rounded up."""
    if optimizer.warmup_steps is not None:
        return optimizer.warmup_steps
    return math.ceil(total * (optimizer.warmup_ratio or 0))


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate after `step` of `total` steps, which is the one of the next step.

    Formulas of transformers.optimization, in its own order of operations, so that the numbers are equal to the bit.
    """
    optimizer = recipe.optimizer
    warm = warmup(optimizer, total)
    if step < warm:
        return optimizer.learning_rate * (step / max(1, warm))
    return optimizer.learning_rate * SHAPES[optimizer.lr_scheduler](optimizer, step, warm, total)


def _linear(_: Optimizer, step: int, warm: int, total: int) -> float:
    return max(0.0, (total - step) / max(1, total - warm))


def _cosine(optimizer: Optimizer, step: int, warm: int, total: int) -> float:
    factor = 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * _progress(step, warm, total)))
    return max(0.0, factor * (1 - optimizer.min_lr_ratio) + optimizer.min_lr_ratio)


def _restarts(optimizer: Optimizer, step: int, warm: int, total: int) -> float:
    progress = _progress(step, warm, total)
    if progress >= 1.0:
        return 0.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((optimizer.num_cycles * progress) % 1.0))))


def _constant(*_: object) -> float:
    return 1.0


def _inverse_sqrt(_: Optimizer, step: int, warm: int, __: int) -> float:
    timescale = warm or 10_000
    return 1.0 / math.sqrt((step + timescale - warm) / timescale)


def _progress(step: int, warm: int, total: int) -> float:
    return (step - warm) / max(1, total - warm)


SHAPES: Mapping[str, Callable[[Optimizer, int, int, int], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "constant": _constant,
    "inverse_sqrt": _inverse_sqrt,
    PLATEAU: _constant,  # the most it is: what it falls by hangs on losses
}


def milestones(recipe: Recipe, found: Steps | None) -> dict[str, float | None]:
    """The rate at the start, after the warm-up, half way and at the end; None where that takes the number of steps."""
    optimizer = recipe.optimizer
    if found is not None and optimizer.lr_scheduler != PLATEAU:
        at = {"start": 0, "after_warmup": min(found.warmup, found.total), "half": found.total // 2, "end": found.total}
        return {name: learning_rate(recipe, step, found.total) for name, step in at.items()}
    warm = bool(optimizer.warmup_steps or optimizer.warmup_ratio)
    counted = bool(optimizer.warmup_steps) or optimizer.lr_scheduler in ("inverse_sqrt", PLATEAU)
    return {
        "start": 0.0 if warm else optimizer.learning_rate,
        "after_warmup": optimizer.learning_rate,
        "half": None,
        "end": None if counted else learning_rate(recipe, 1000, 1000),
    }
