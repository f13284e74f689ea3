"""A plan -> text for people and plain values for JSON."""

from __future__ import annotations

from typing import Any

from .plan import Plan, command


def values(plan: Plan, source: str) -> dict[str, Any]:
    """The `plan` contract; `steps` is null before the rows are counted, `parameters` and `memory` are not computed."""
    return {
        "recipe": source,
        "hardware": plan.values["hardware"],
        "batch": dict(plan.batch),
        "steps": None,
        "parameters": None,
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
        *(f"  {item.pointer} = {item.value}: {item.reason}" for item in plan.derived),
        f"  stages {', '.join(launch.stage for launch in plan.launches)}",
    ]
    if commands:
        lines += ["", *(command(launch) for launch in plan.launches)]
    return "\n".join(lines) + "\n"
