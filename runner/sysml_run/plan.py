"""Recipe x Machine -> everything that would run, as plain data; starts nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import slices, teachers
from .backends import BACKENDS, named
from .backends.base import ON_CPU, Derived, Launch, shell
from .errors import UsageError
from .machine import Machine
from .recipe import HardwareTpu, Recipe
from .resolve import Resolved, build

ENV = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "USE_TORCH_XLA": "0",  # accelerate and transformers compute on XLA wherever torch_xla can be imported
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass(frozen=True)
class Stage:
    """One step of a run; `wanted` says for which recipes it exists."""

    name: str
    does: str
    wanted: Callable[[Recipe], bool] = lambda _: True


def kept(recipe: Recipe) -> bool:
    """Whether a model comes of it; a fold of cross-validation is only measured."""
    return recipe.evaluation.cross_validation is None


STAGES = (
    Stage("prepare", "rows -> tokens and labels"),
    Stage("teacher", "its predictions of the training rows", teachers.wanted),
    Stage("train", "fine-tune"),
    Stage("evaluate", "loss and answers before and after"),
    Stage("merge", "adapter into base, proven equal", lambda recipe: recipe.lora is not None and kept(recipe)),
    Stage(
        "quantize",
        "GGUF and GPTQ copies, each measured",
        lambda recipe: bool(recipe.quantization.export) and kept(recipe),
    ),
    Stage("package", "a folder that loads offline", kept),
    Stage("report", "report.html"),
)


@dataclass(frozen=True)
class Settled:
    """The resolved recipe with what was derived."""

    recipe: Recipe
    values: dict[str, Any]
    sources: dict[str, str]
    derived: tuple[Derived, ...]


@dataclass(frozen=True)
class Plan(Settled):
    """What would run, as seen from `machine`."""

    batch: Mapping[str, int]
    launches: tuple[Launch, ...]
    machine: Machine


def make(resolved: Resolved, machine: Machine, run: str, *, offline: bool = False) -> Plan:
    """Settle what the recipe left open and lay out the processes for the run directory `run` (an absolute path)."""
    settled = settle(resolved, machine)
    recipe = settled.recipe
    env = {**ENV, **(OFFLINE if offline else {})}
    launches = tuple(_launch(stage, recipe, machine, run, env) for stage in STAGES if stage.wanted(recipe))
    return Plan(recipe, settled.values, settled.sources, settled.derived, batch(recipe), launches, machine)


def settle(resolved: Resolved, machine: Machine) -> Settled:
    """Fill in what the recipe leaves open."""
    theirs = BACKENDS[named(resolved.recipe)].derive(resolved.recipe, machine)
    derived = (*theirs, *_batch(resolved.recipe), *_saving(resolved.recipe))
    values, sources = copy.deepcopy(resolved.values), dict(resolved.sources)
    for item in (item for item in derived if item.key):
        _put(values, item.pointer, item.value)
        sources[item.pointer] = f"derived: {item.reason}"
    return Settled(build(values), values, sources, derived)


def choose(plan: Plan, only: Sequence[str], until: str | None) -> tuple[Launch, ...]:
    """The launches of `--only` and `--until`. Raises UsageError for a stage this run does not have."""
    names = [launch.stage for launch in plan.launches]
    for name in [*only, *([until] if until is not None else [])]:
        if name not in names:
            raise UsageError(f"this run has no stage {name!r}", f"its stages: {', '.join(names)}")
    last = names.index(until) if until is not None else len(names) - 1
    chosen = tuple(item for item in plan.launches[: last + 1] if not only or item.stage in only)
    if not chosen:
        message = f"--only {','.join(only)} --until {until} leaves nothing to run"
        raise UsageError(message, f"its stages: {', '.join(names)}")
    return chosen


def world_size(recipe: Recipe) -> int:
    """Devices over all machines that each take a micro batch."""
    if isinstance(recipe.hardware, HardwareTpu):
        return slices.find(recipe.hardware.topology).devices
    devices, nodes = getattr(recipe.hardware, "devices", 1), getattr(recipe.hardware, "nodes", 1)
    return int(devices) * int(nodes)


def machines(recipe: Recipe, machine: Machine) -> int:
    """Machines that train together, each started by itself; virtual devices are all of this one."""
    if isinstance(recipe.hardware, HardwareTpu):
        return 1 if machine.virtual else slices.find(recipe.hardware.topology).hosts
    return int(getattr(recipe.hardware, "nodes", 1))


def batch(recipe: Recipe) -> dict[str, int]:
    """Rows: micro batch of one device, accumulation, devices, and their product."""
    micro, accumulation = recipe.training.micro_batch_size, recipe.training.gradient_accumulation_steps or 1
    world = world_size(recipe)
    return {
        "micro": micro,
        "accumulation": accumulation,
        "world_size": world,
        "effective": micro * accumulation * world,
    }


def command(launch: Launch) -> str:
    """The line that runs this launch by hand."""
    return shell(["env", *(f"{name}={value}" for name, value in launch.env.items()), *launch.argv])


def files(plan: Plan, shown: Mapping[str, Any], text: str) -> dict[str, str]:
    """What a run directory starts with, by name: the recipe as written and as resolved, the plan, the launch files.

    `shown` is the plan as plain values and `text` the recipe as written. `recipe.json`, by which a run directory is
    known, comes last.
    """
    scripts = {f"launch/{launch.stage}.sh": f"#!/bin/sh\n{command(launch)}\n" for launch in plan.launches}
    return {
        "recipe.yaml": text,
        "plan.json": _json(shown),
        **{name: file for launch in plan.launches for name, file in launch.files.items()},
        **scripts,
        "recipe.json": _json({"values": plan.values, "sources": plan.sources}),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _batch(recipe: Recipe) -> list[Derived]:
    training, name = recipe.training, "training.gradient_accumulation_steps"
    if training.gradient_accumulation_steps is not None:
        return []
    if training.effective_batch_size is None:
        return [Derived(name, 1, "neither it nor effective_batch_size is written")]
    each = training.micro_batch_size * world_size(recipe)
    reason = f"effective_batch_size {training.effective_batch_size} / {each} rows a step over all devices"
    return [Derived(name, training.effective_batch_size // each, reason)]


def _saving(recipe: Recipe) -> list[Derived]:
    """The best checkpoint is one that was kept where the loss was measured, not at the end of an epoch."""
    every = recipe.evaluation.every_steps
    if recipe.evaluation.best is None or every is None or recipe.training.save_steps is not None:
        return []
    return [Derived("training.save_steps", every, "the best checkpoint is one of those whose loss is measured")]


def _launch(stage: Stage, recipe: Recipe, machine: Machine, run: str, env: Mapping[str, str]) -> Launch:
    backend = BACKENDS[named(recipe)]
    if stage.name == "train" and recipe.model.trained is None:
        made = backend.train(recipe, machine, run)
        return Launch(made.stage, made.argv, {**env, **made.env}, made.files)
    threads = backend.threads(recipe, machine)
    own = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    if recipe.hardware.accelerator == "cpu":
        own |= ON_CPU
    return Launch(stage.name, (machine.python, "-m", "sysml_run.worker", stage.name, run), {**env, **own})


def _put(values: dict[str, Any], pointer: str, value: Any) -> None:
    *sections, key = pointer.split(".")
    for section in sections:
        values = values[section]
    values[key] = value
