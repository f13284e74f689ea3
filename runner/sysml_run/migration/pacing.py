"""How long a run is, in what batches, when it is measured and saved: the names that most trainers share."""

from __future__ import annotations

from .ledger import Ledger
from .values import number, truth

IN_STEPS = "an interval is written in steps; `sysml-run plan` shows the steps of an epoch"
MEASURED = "the loss before and after is measured on held-out rows"
LOSSES = ("loss", "eval_loss")


def length(ledger: Ledger, epochs: str, default: float) -> None:
    """Steps win over epochs where both are written, as they do there."""
    steps = number(ledger.get("max_steps"))
    if steps is not None and steps > 0:
        ledger.same("training.max_steps", "max_steps")
        ledger.leave(epochs, "max_steps is written too, and wins")
        return
    ledger.leave("max_steps", "no limit: num_epochs ends the run")
    ledger.same("training.num_epochs", epochs)
    ledger.make("training.num_epochs", default, f"{ledger.tool}'s default")


def saving(ledger: Ledger, default: int | None = None) -> None:
    """Checkpoints by steps; what is written by epochs is the recipe's default or has to be counted."""
    strategy = str(ledger.get("save_strategy") or "").lower()
    steps = number(ledger.get("save_steps"))
    if strategy == "epoch":
        ledger.leave("save_strategy", "the default here: a checkpoint at the end of each epoch")
        ledger.leave("save_steps", "save_strategy epoch does not read it")
    elif steps is not None and steps >= 1:
        ledger.carry("training.save_steps", steps, "save_steps", *_said(ledger, "save_strategy", strategy == "steps"))
    elif default is not None and not strategy:
        ledger.make("training.save_steps", default, f"{ledger.tool}'s default")
    per_epoch = number(ledger.get("saves_per_epoch"))
    if per_epoch == 1:
        ledger.leave("saves_per_epoch", "the default here: a checkpoint at the end of each epoch")
    ledger.same("training.keep_checkpoints", "save_total_limit")


def measuring(ledger: Ledger) -> None:
    """The validation loss by steps, and what is decided by it."""
    steps = number(ledger.get("eval_steps"))
    strategies = [name for name in ("eval_strategy", "evaluation_strategy") if ledger.get(name) == "steps"]
    if any(str(ledger.get(name)).lower() == "no" or ledger.get(name) is False for name in ("eval_strategy",)):
        ledger.leave("eval_steps", "eval_strategy is no: the loss is measured before and after training alone")
    elif steps is not None and steps >= 1:
        ledger.carry("evaluation.every_steps", steps, "eval_steps", *strategies)
    elif any(ledger.get(name) == "epoch" for name in ("eval_strategy", "evaluation_strategy")):
        ledger.look.append(f"evaluation.every_steps: {ledger.tool} measures at the end of each epoch; {IN_STEPS}")
    often = number(ledger.get("evals_per_epoch"))
    if often:
        ledger.look.append(f"evaluation.every_steps: {ledger.tool} measures {often:g} times an epoch; {IN_STEPS}")
    ledger.same("evaluation.early_stopping.patience", "early_stopping_patience")
    _best(ledger)


def _best(ledger: Ledger) -> None:
    metric = ledger.get("metric_for_best_model")
    if truth(ledger.get("load_best_model_at_end")) and (metric is None or metric in LOSSES):
        also = ("greater_is_better",) if truth(ledger.get("greater_is_better")) is False else ()
        ledger.carry("evaluation.best.metric", "eval_loss", "load_best_model_at_end", "metric_for_best_model", *also)


def held_out(ledger: Ledger, key: str, usual: float) -> None:
    """The share or number of rows held out; none is not possible, so `usual` stands for it."""
    size = number(ledger.get(key))
    if size and size > 0:
        ledger.carry("split.validation", int(size) if size > 1 else size, key)
    else:
        none_held_out(ledger, usual)
        held = ledger.entries["split", "validation"].value
        ledger.leave(
            key, f"{MEASURED}, so {held:g} is written" if held else "the validation rows have datasets of their own"
        )


def none_held_out(ledger: Ledger, usual: float) -> None:
    """Rows that the trainer would train on are held out, which is said."""
    if ("split", "validation") not in ledger.entries:
        ledger.make("split.validation", usual, f"{ledger.tool} holds out none; {MEASURED}")
        ledger.look.append(f"split.validation: {usual:g} of the rows are held out; {ledger.tool} trains on all of them")


def _said(ledger: Ledger, name: str, says_so: bool) -> tuple[str, ...]:
    return (name,) if says_so and ledger.has(name) else ()
