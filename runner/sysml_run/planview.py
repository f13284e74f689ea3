"""A plan -> text for people and plain values for JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import counts, outlook, schedule, stagefiles
from .backends.base import Launch
from .plan import STAGES, Plan, command
from .position import value_at
from .prepared import Counted
from .recipe import Recipe
from .resolve import DEFAULT

WIDTH = 120
UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


def values(plan: Plan, source: str, counted: Counted | None = None) -> dict[str, Any]:
    """The `plan` contract; `steps` is null where it takes rows that were not `counted`, `memory` for unknown models.

    `parameters` is null for a model that is not at hand. Raises UsageError for one whose files cannot be read.
    """
    found = counts.parameters(plan.recipe)
    steps = schedule.steps(counted.rows["train"] if counted else None, plan.batch, plan.recipe)
    return {
        "recipe": source,
        "hardware": plan.values["hardware"],
        "batch": dict(plan.batch),
        "steps": asdict(steps) if steps else None,
        "parameters": found and {name: getattr(found, name) for name in ("total", "trainable", "adapter_bytes")},
        **outlook.values(outlook.look(plan.recipe, plan.machine, counted)),
        "derived": [{"pointer": item.pointer, "value": item.value, "reason": item.reason} for item in plan.derived],
        "defaulted": defaulted(plan),
        "launch": [_launch(item, plan.recipe) for item in plan.launches],
        "problems": [],
    }


def _launch(item: Launch, recipe: Recipe) -> dict[str, Any]:
    files = stagefiles.FILES[item.stage]
    return {
        "stage": item.stage,
        "inputs": list(files.inputs(recipe)),
        "outputs": list(files.outputs(recipe)),
        "argv": list(item.argv),
        "env": dict(item.env),
        "files": dict(item.files),
    }


def defaulted(plan: Plan) -> list[str]:
    """The keys that nobody wrote and nothing was derived for."""
    return [name for name, source in plan.sources.items() if source == DEFAULT]


def text(plan: Plan, counted: Counted | None = None, *, commands: bool) -> str:
    """What runs on what, what it needs, each derived value with its reason; if asked, each stage in full."""
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
        *outlook.lines(outlook.look(recipe, plan.machine, counted)),
        *(f"  {item.pointer} = {item.value}: {item.reason}" for item in plan.derived),
        f"  stages {', '.join(launch.stage for launch in plan.launches)}{_fold(recipe)}",
    ]
    if commands:
        lines += [_defaults(plan), *(line for launch in plan.launches for line in ("", *_stage(launch, plan)))]
    return "\n".join(lines) + "\n"


def _fold(recipe: Recipe) -> str:
    found = recipe.evaluation.cross_validation
    if found is None:
        return ""
    return f", for fold {found.fold} of {found.folds}" if found.fold else f", for each of {found.folds} folds"


def _stage(launch: Launch, plan: Plan) -> Iterator[str]:
    """What it is, what goes in and comes out, the files written for it, and the line that runs it by hand."""
    does = next(stage.does for stage in STAGES if stage.name == launch.stage)
    files = stagefiles.FILES[launch.stage]
    yield f"{launch.stage}: {does}"
    yield f"  in   {', '.join(map(_near, files.inputs(plan.recipe)))}"
    yield f"  out  {', '.join(files.outputs(plan.recipe))}"
    if launch.files:
        yield f"  with {', '.join(launch.files)}"
    yield command(launch)


def _defaults(plan: Plan) -> str:
    """Every key that was not written, with its value."""
    left = defaulted(plan)
    words = "  ".join(f"{name}={json.dumps(value_at(plan.values, name))}" for name in left)
    head = f"  by default ({len(left)} keys)  "
    return textwrap.fill(head + words, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _near(name: str) -> str:
    """A path from the current folder when it is below it; other names as they are."""
    path, here = Path(name), Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else name


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
