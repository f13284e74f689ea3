"""reduce_lr_on_plateau on the scheduler that the worker builds: torch's own rates at every step, also when resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState

from sysml_run.recipe import Recipe
from sysml_run.worker import plateau, settings

RATE, EVERY, STEPS = 1e-3, 2, 24
LOSSES = (3.0, 2.0, 2.0, 2.1, 1.9, 1.9, 2.2, 2.5, 1.8999, 2.0, 2.0, 2.0)
Make = Callable[..., Recipe]


def recipe(make: Make, **optimizer: Any) -> Recipe:
    chosen = {"name": "adamw", "learning_rate": RATE, "lr_scheduler": "reduce_lr_on_plateau"} | optimizer
    return make(
        datasets=[{"path": "rows.jsonl", "type": "messages"}],
        optimizer=chosen,
        evaluation={"every_steps": EVERY},
        hardware={"accelerator": "cpu", "precision": "fp32"},
    )


class Driven:
    """The worker's optimizer, schedule and callback, driven as the training loop does."""

    def __init__(self, made: Recipe, folder: Path) -> None:
        arguments = settings.arguments(made, str(folder))
        self.trainer = Trainer(model=torch.nn.Linear(2, 2), args=arguments, eval_dataset=[{"x": 0}])
        self.trainer.create_optimizer_and_scheduler(STEPS)
        (self.callback,) = plateau.wanted(made.optimizer)

    def rates(self, losses: Iterator[float], first: int = 0, last: int = STEPS) -> list[float]:
        """The learning rate of each step; every EVERY steps the next of the losses is measured."""
        found = []
        for step in range(first + 1, last + 1):
            found.append(self.trainer.optimizer.param_groups[0]["lr"])
            self.trainer.optimizer.step()
            self.trainer.lr_scheduler.step()
            if step % EVERY == 0:
                self.measured(next(losses))
        assert len({group["lr"] for group in self.trainer.optimizer.param_groups}) == 1
        assert self.trainer.lr_scheduler.get_last_lr()[0] == self.trainer.optimizer.param_groups[0]["lr"]
        return found

    def measured(self, loss: float) -> None:
        state, control = TrainerState(), TrainerControl()
        self.callback.on_evaluate(
            self.trainer.args, state, control, metrics={"eval_loss": loss}, lr_scheduler=self.trainer.lr_scheduler
        )


def torchs(losses: Sequence[float], factor: float, patience: int, floor: float) -> list[float]:
    """torch's own scheduler on an optimizer of its own."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, min_lr=floor * RATE
    )
    found = []
    for step in range(1, STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % EVERY == 0:
            scheduler.step(losses[step // EVERY - 1])
    return found


@pytest.mark.parametrize(("factor", "patience", "floor"), [(0.5, 1, 0.0), (0.1, 0, 0.05), (0.5, 2, 0.3)])
def test_the_rates_are_torchs(factor: float, patience: int, floor: float, make_recipe: Make, tmp_path: Path) -> None:
    made = recipe(make_recipe, plateau_factor=factor, plateau_patience=patience, min_lr_ratio=floor)
    found = Driven(made, tmp_path).rates(iter(LOSSES))
    assert found == pytest.approx(torchs(LOSSES, factor, patience, floor), rel=1e-12)
    assert found[0] == RATE
    assert found[-1] < RATE


def test_by_hand(make_recipe: Make, tmp_path: Path) -> None:
    """Patience 1: the second measurement in a row that is no better halves the rate, from the next step on."""
    found = Driven(recipe(make_recipe, plateau_patience=1), tmp_path).rates(iter(LOSSES))
    assert found[::EVERY] == [RATE * share for share in (1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625)]


def test_a_warm_up_comes_first(make_recipe: Make, tmp_path: Path) -> None:
    made = recipe(make_recipe, warmup_steps=8, plateau_patience=0)
    found = Driven(made, tmp_path).rates(iter([2.0] * 12))
    shares = [2.0 ** -max(0, step // EVERY - 1) for step in range(STEPS)]
    assert found == pytest.approx([RATE * min(1, step / 8) * shares[step] for step in range(STEPS)])


def test_a_run_that_goes_on_ends_in_the_same_rates(make_recipe: Make, tmp_path: Path) -> None:
    made = recipe(make_recipe, plateau_patience=1)
    whole = Driven(made, tmp_path).rates(iter(LOSSES))
    before, losses = Driven(made, tmp_path), iter(LOSSES)
    start = before.rates(losses, 0, 14)
    kept = json.loads(json.dumps(before.callback.state()))
    after = Driven(made, tmp_path)
    after.callback = plateau.Plateau.from_state(kept)
    assert after.callback.judged == before.callback.judged
    after.trainer.optimizer.load_state_dict(before.trainer.optimizer.state_dict())
    after.trainer.lr_scheduler.load_state_dict(before.trainer.lr_scheduler.state_dict())
    assert start + after.rates(losses, 14) == whole


def test_wrapped_schedules_are_lowered_too(make_recipe: Make, tmp_path: Path) -> None:
    driven = Driven(recipe(make_recipe, plateau_patience=0), tmp_path)
    inner = driven.trainer.lr_scheduler

    class Wrapper:
        scheduler = inner

    plateau.lower(Wrapper(), 0.25)
    assert inner.get_last_lr() == [RATE / 4] * len(driven.trainer.optimizer.param_groups)


def test_other_schedules_have_none(make_recipe: Make) -> None:
    assert plateau.wanted(recipe(make_recipe, lr_scheduler="cosine").optimizer) == []
