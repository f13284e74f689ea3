"""What follows from a recipe, by name: rows, batches, steps, learning rates, tokens, parameters, bytes."""

from __future__ import annotations

from typing import Any

from . import counts, plan, prepared, schedule
from .errors import UsageError
from .estimate import hours
from .recipe import Recipe

SPLITS = ("train", "validation", "test")


def facts(recipe: Recipe) -> dict[str, Any]:
    """Of a settled recipe, None where unknown; rows are those prepared on this machine, bytes those of one device."""
    files = prepared.sources(recipe)
    counted = None if files is None else prepared.counted(recipe, files)
    batch = plan.batch(recipe)
    mean, most = hours.tokens(recipe, batch, counted)
    steps = schedule.steps(counted.rows["train"] if counted else None, batch, recipe)
    return {
        "data.sha256": None if files is None else prepared.digest(files),
        **{f"rows.{name}": counted.rows[name] if counted else None for name in SPLITS},
        **{f"batch.{name}": number for name, number in batch.items()},
        "steps.per_epoch": steps.per_epoch if steps else None,
        "steps.total": steps.total if steps else None,
        "steps.warmup": steps.warmup if steps else None,
        **{f"learning_rate.{name}": rate for name, rate in schedule.milestones(recipe, steps).items()},
        "tokens_per_step.mean": mean,
        "tokens_per_step.at_most": most,
        **_sizes(recipe),
    }


def _sizes(recipe: Recipe) -> dict[str, int | None]:
    """Parameters and the bytes of training state; activations and logits are not counted."""
    try:
        parameters, state = counts.parameters(recipe), counts.state_bytes(recipe)
    except UsageError:  # the model's own files are broken, which says nothing of the recipes
        parameters = state = None
    found = {
        "parameters.total": parameters.total if parameters else None,
        "parameters.trainable": parameters.trainable if parameters else None,
        "parameters.adapter_bytes": (parameters.adapter_bytes or 0) if parameters else None,
    }
    for name in ("weights", "gradients", "optimizer"):
        found[f"state.{name}"] = state[name] if state else None
    return found | {
        "state.total": sum(state[name] for name in ("weights", "gradients", "optimizer")) if state else None
    }
