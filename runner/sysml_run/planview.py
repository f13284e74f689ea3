"""A plan -> text for people and plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from . import counts, schedule
from .plan import Plan, command
from .recipe import Recipe

UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


def values(plan: Plan, source: str, rows: int | None = None) -> dict[str, Any]:
    """The `plan` contract; `steps` is null where it takes the number of training `rows`, `memory` is not computed.

    `parameters` is null for a model that is not at hand. Raises UsageError for one whose files cannot be read.
    """
    counted = counts.parameters(plan.recipe)
    steps = schedule.steps(rows, plan.batch, plan.recipe)
    return {
        "recipe": source,
        "hardware": plan.values["hardware"],
        "batch": dict(plan.batch),
        "steps": asdict(steps) if steps else None,
        "parameters": counted and {name: getattr(counted, name) for name in ("total", "trainable", "adapter_bytes")},
        "memory": None,
        "derived": [{"pointer": item.pointer, "value": item.value, "reason": item.reason} for item in plan.derived],
        "launch": [
            {"stage": item.stage, "argv": list(item.argv), "env": dict(item.env), "files": dict(item.files)}
            for item in plan.launches
        ],
        "problems": [],
    }


def text(plan: Plan, *, commands: bool) -> str:
    """What runs on what, each derived value with its reason, and, if asked, the command of each stage."""
    recipe, batch = plan.recipe, plan.batch
    method = f"LoRA r={recipe.lora.r}" if recipe.lora else "full fine-tune"
    length = (
        f"{recipe.training.num_epochs:g} epochs" if recipe.training.num_epochs else f"{recipe.training.max_steps} steps"
    )
    optimizer = f"{recipe.optimizer.name} {recipe.optimizer.learning_rate:g}"
    lines = [
        f"{recipe.name}: {recipe.model.base_model}, {method}, {optimizer}",
        f"  batch  {batch['micro']} rows x {batch['accumulation']} accumulation x {batch['world_size']} devices"
        f" = {batch['effective']} rows a step, {length}",
        *_parameters(recipe),
        *(f"  {item.pointer} = {item.value}: {item.reason}" for item in plan.derived),
        f"  stages {', '.join(launch.stage for launch in plan.launches)}",
    ]
    if commands:
        lines += ["", *(command(launch) for launch in plan.launches)]
    return "\n".join(lines) + "\n"


def _parameters(recipe: Recipe) -> list[str]:
    """How many there are and are trained, and each target module that matches nothing; no line for an unknown model."""
    counted = counts.parameters(recipe)
    if counted is None:
        return []
    trained = "all trained"
    if counted.adapter_bytes is not None:
        share = 100 * counted.trainable / counted.total
        adapter = f"{counted.adapter_bytes / 10**6:.1f} MB"
        trained = f"trained {_short(counted.trainable)} ({share:.2f} %), adapter {adapter}"
    missed = [f"  lora.target_modules: no linear layer is called {name!r}" for name in counted.unmatched]
    return [f"  parameters  {_short(counted.total)}, {trained}", *missed]


def _short(number: int) -> str:
    """46_702_792_704 -> 46.70 B."""
    return next((f"{number / size:.2f} {unit}" for size, unit in UNITS if number >= size), str(number))
