"""Our learning rates are those of the schedulers that training really builds, at every step, to the bit."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from transformers import get_scheduler

from sysml_run import document, overrides, schedule, schema
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.worker import settings

RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 3.7e-4}
training: {num_epochs: 2, micro_batch_size: 4, gradient_accumulation_steps: 3}
"""
NAMES = {
    name: ((), *more)
    for name in schema.find(("optimizer", "lr_scheduler"))[0]["enum"]
    for more in [{"cosine": [("min_lr_ratio=0.13",)], "cosine_with_restarts": [("num_cycles=3",)]}.get(name, [])]
}
WARMUPS = ("warmup_steps=null", "warmup_steps=7", "warmup_steps=50", "warmup_ratio=0.1", "warmup_ratio=0.03")


def recipe(*assignments: str) -> Recipe:
    written = (f"optimizer.{one}" for one in assignments)
    return resolve(overrides.apply(document.parse(RECIPE, "one.yaml"), tuple(written))).recipe


def test_every_scheduler_of_the_schema_is_here() -> None:
    assert set(NAMES) == set(schedule.SHAPES)


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize(("name", "more"), [(name, more) for name, each in NAMES.items() for more in each])
def test_rates(name: str, more: tuple[str, ...], warmup: str) -> None:
    found = recipe(f"lr_scheduler={name}", warmup, *more)
    for total in (1, 2, 30, 61):
        assert rates(found, total) == [schedule.learning_rate(found, step, total) for step in range(total + 1)]


def rates(found: Recipe, total: int) -> list[float]:
    """As Trainer.create_scheduler builds it from our arguments, read before each step and after the last."""
    args = settings.schedule(found.optimizer)
    share = args["warmup_steps"]
    warm = int(share) if share >= 1 else math.ceil(total * share)  # TrainingArguments.get_warmup_steps
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=found.optimizer.learning_rate)
    scheduler = get_scheduler(args["lr_scheduler_type"], optimizer, warm, total, args["lr_scheduler_kwargs"])
    made = []
    for _ in range(total + 1):
        made.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return made


ROWS, BATCHES = (1, 7, 23, 24), (1, 4)


def test_steps_are_the_trainers() -> None:
    """Trainer.set_initial_training_values and get_warmup_steps with our own arguments; nothing is trained."""
    from transformers import Trainer

    for rows, micro, accumulation, epochs in itertools.product(ROWS, BATCHES, (1, 3), (0.5, 1, 2.25)):
        changes = (f"training.micro_batch_size={micro}", f"training.gradient_accumulation_steps={accumulation}")
        read = overrides.apply(document.parse(RECIPE, "one.yaml"), (*changes, f"training.num_epochs={epochs}"))
        found = resolve(overrides.apply(read, ("optimizer.warmup_ratio=0.15",))).recipe
        args = settings.arguments(found, "unused")
        trainer = Trainer(torch.nn.Linear(1, 1), args, train_dataset=[{"x": torch.zeros(1)}] * rows)
        values = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
        batch = {"micro": micro, "accumulation": accumulation, "world_size": 1, "effective": micro * accumulation}
        steps = schedule.steps(rows, batch, found)
        assert steps is not None
        assert (steps.per_epoch, steps.total) == (values[1], values[-1])
        assert steps.warmup == args.get_warmup_steps(steps.total)
