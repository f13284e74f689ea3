"""The optimizer, its schedule and its numbers, as transformers names them and the trainers built on it."""

from __future__ import annotations

from collections.abc import Mapping

from sysml_run.schedule import PLATEAU

from .ledger import Ledger
from .values import named, number, words

PAGED = "without the pages in host memory"
FUSED = "the fused kernel is chosen by the machine"
STATES = "the states are of bitsandbytes"
NOTES: Mapping[str, str] = {  # by a part of the optimizer's name
    "paged": PAGED,
    "fused": FUSED,
    "torch_8bit": STATES,
    "ao_": STATES,
}


def optimizer(ledger: Ledger, key: str, default: str) -> None:
    """The optimizer's name; one that recipes do not have becomes adamw, and both the recipe and the report say so."""
    name = str(ledger.get(key) or default).lower()
    known = named(("optimizer", "name"))
    ours = known.get(name, "adamw")
    if ledger.get(key) is None:
        ledger.make("optimizer.name", ours, f"{ledger.tool}'s default: {default}")
    elif name in known:
        ledger.carry("optimizer.name", ours, key, note=next((note for part, note in NOTES.items() if part in name), ""))
    else:
        ledger.make("optimizer.name", ours, f"recipes do not have {name}; choose again")
        ledger.leave(key, f"recipes do not have {name}: adamw is written in its place")
        ledger.look.append(f"optimizer.name: adamw stands for {name}; the learning rate may want to change with it")


def numbers(ledger: Ledger) -> None:
    """The learning rate, the decay and the numbers of Adam's and Lion's averages."""
    ledger.same("optimizer.learning_rate", "learning_rate")
    ledger.same("optimizer.weight_decay", "weight_decay")
    betas = [number(ledger.get(name)) for name in ("adam_beta1", "adam_beta2")]
    if betas != [None, None]:
        written = [one if one is not None else usual for one, usual in zip(betas, (0.9, 0.999), strict=True)]
        ledger.carry("optimizer.betas", written, "adam_beta1", "adam_beta2")
    elif ledger.entries.get(("optimizer", "name")) and ledger.entries["optimizer", "name"].value.startswith("lion"):
        ledger.make("optimizer.betas", [0.9, 0.999], f"{ledger.tool}'s default; the paper has [0.9, 0.99]")
    ledger.same("optimizer.epsilon", "adam_epsilon")


def scheduler(ledger: Ledger, key: str, default: str) -> None:
    """The schedule and what its keyword arguments hold; an unknown one becomes cosine, which is said."""
    name = str(ledger.get(key) or default).lower()
    known = named(("optimizer", "lr_scheduler"))
    if ledger.get(key) is None:
        ledger.make("optimizer.lr_scheduler", default, f"{ledger.tool}'s default")
    elif name in known:
        ledger.carry("optimizer.lr_scheduler", known[name], key)
    else:
        ledger.make("optimizer.lr_scheduler", "cosine", f"recipes do not have {name}; choose again")
        ledger.leave(
            key, f"recipes have {', '.join(words(('optimizer', 'lr_scheduler')))}: cosine is written in its place"
        )
        ledger.look.append(f"optimizer.lr_scheduler: cosine stands for {name}")
    _arguments(ledger)
    if ledger.entries["optimizer", "lr_scheduler"].value == PLATEAU:
        ledger.make("optimizer.plateau_factor", 0.1, f"{ledger.tool}'s default")
        ledger.make("optimizer.plateau_patience", 10, f"{ledger.tool}'s default")


def _arguments(ledger: Ledger) -> None:
    kwargs = "lr_scheduler_kwargs"
    ledger.same("optimizer.plateau_factor", f"{kwargs}.factor")
    ledger.same("optimizer.plateau_patience", f"{kwargs}.patience")
    ledger.same("optimizer.num_cycles", f"{kwargs}.num_cycles")
    ledger.same("optimizer.min_lr_ratio", f"{kwargs}.min_lr_rate")
    least, rate = number(ledger.get(f"{kwargs}.min_lr")), number(ledger.get("learning_rate"))
    if least is not None and rate:
        share = float(f"{least / rate:.6g}")
        ledger.carry("optimizer.min_lr_ratio", share, f"{kwargs}.min_lr", note="as a share of learning_rate")


def warmup(ledger: Ledger, key: str) -> None:
    """Steps or a share of them; `key` names the schedule, of which two have no warm-up whatever is written."""
    schedule = ledger.word(key)
    if schedule in ("constant", PLATEAU):
        for name in ("warmup_steps", "warmup_ratio"):
            ledger.leave(
                name, f"lr_scheduler {schedule} has no warm-up in {ledger.tool}; it has one here if it is written"
            )
        return
    steps, ratio = number(ledger.get("warmup_steps")), number(ledger.get("warmup_ratio"))
    if steps is not None and 0 < steps < 1:
        ledger.carry("optimizer.warmup_ratio", steps, "warmup_steps", note="below 1 it is a share")
    elif steps:
        ledger.same("optimizer.warmup_steps", "warmup_steps")
    elif ratio is not None:
        ledger.same("optimizer.warmup_ratio", "warmup_ratio")
    ledger.leave("warmup_ratio", "warmup_steps is written too, and wins")
    ledger.leave("warmup_steps", "no warm-up, as without the key")
