"""The learning rate falls when the validation loss no longer does: torch's ReduceLROnPlateau over any schedule."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from sysml_run.recipe import Optimizer
from sysml_run.schedule import PLATEAU


class Plateau(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Lowers what the schedule multiplies, so that a warm-up, DeepSpeed and XLA step it as they step any other.

    torch's own, given to a trainer, is left out of accelerate's wrappers and knows no warm-up. Here it judges a rate of
    1, the share of the recipe's that is left; an improvement is one of more than a ten-thousandth, torch's default.
    """

    def __init__(self, factor: float, patience: int, floor: float) -> None:
        import torch

        self.settings = {"factor": factor, "patience": patience, "floor": floor}
        self.rate = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
        self.judge = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.rate, factor=factor, patience=patience, min_lr=floor
        )

    @property
    def share(self) -> float:
        """Of the recipe's learning rate."""
        return float(self.rate.param_groups[0]["lr"])

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        before = self.share
        self.judge.step(metrics["eval_loss"])
        if self.share != before:
            lower(lr_scheduler, self.share)

    def state(self) -> dict[str, Any]:
        """For a checkpoint: a run that goes on has waited as long already."""
        judged = {"best": self.judge.best, "num_bad_epochs": self.judge.num_bad_epochs, "share": self.share}
        return {"args": dict(self.settings), "attributes": {"judged": judged}}

    @property
    def judged(self) -> dict[str, Any]:
        return dict(self.state()["attributes"]["judged"])

    @judged.setter
    def judged(self, found: dict[str, Any]) -> None:
        self.judge.best, self.judge.num_bad_epochs = found["best"], found["num_bad_epochs"]
        self.rate.param_groups[0]["lr"] = found["share"]


def wanted(chosen: Optimizer) -> list[Plateau]:
    """The callback of a recipe that asks for it."""
    if chosen.lr_scheduler != PLATEAU:
        return []
    return [Plateau(chosen.plateau_factor, chosen.plateau_patience, chosen.min_lr_ratio)]


def lower(scheduler: Any, share: float) -> None:
    """Give every group of a LambdaLR `share` of its first rate, from the next step on."""
    while hasattr(scheduler, "scheduler"):
        scheduler = scheduler.scheduler
    groups = scheduler.optimizer.param_groups
    scheduler.base_lrs = [group["initial_lr"] * share for group in groups]
    for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["lr"] = base * factor(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in groups]
