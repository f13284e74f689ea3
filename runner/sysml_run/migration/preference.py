"""Training on preferences or rewards, which recipes do not have: seen before anything else, and said first."""

from __future__ import annotations

from .ledger import Ledger
from .names import load
from .values import off

TYPE = "preference"
WHY = "read and checked; recipes train on answers"
SUPERVISED = "no equal yet: recipes are supervised"  # how the reasons in `known` begin
AXOLOTL = ("rl", "reward_model", "process_reward_model")
STAGES = ("rm", "ppo", "dpo", "kto")
ANSWERS = ("nll", "chunked_nll", "dft")  # losses of trl's supervised training; the others compare two answers
TORCHTUNE = ("reward_and_value_model", "ref_policy_checkpointer", "reward_checkpointer", "ref_checkpointer")
PAIRS = {  # torchtune's builders of two answers to a question, and the dataset that each reads
    "preference_dataset": None,
    "hh_rlhf_helpful_dataset": "RLHFlow/HH-RLHF-Helpful-standard",
    "stack_exchange_paired_dataset": "lvwerra/stack-exchange-paired",
}


def said(ledger: Ledger) -> str:
    """The key that asks for it, as it is written; empty where the training is supervised."""
    keys = {"axolotl": _axolotl, "llama-factory": _factory, "trl": _trl, "torchtune": _torchtune}[ledger.tool](ledger)
    if not keys:
        return ""
    value = ledger.get(keys[0])
    return f"{keys[0]}: {value}" if isinstance(value, str | int | float) else keys[0]


def announce(ledger: Ledger) -> None:
    """The first thing to look at; rows that are named nowhere else are pairs too."""
    key = said(ledger)
    if key:
        ledger.make("datasets.0.type", TYPE, f"{ledger.tool}: {key}; {WHY}")
        words = (
            f"{ledger.tool} trains on preferences or rewards ({key}); recipes train on answers, and refuse to run this"
        )
        ledger.look.insert(0, f"datasets[].type: {words}")


def _axolotl(ledger: Ledger) -> list[str]:
    return [key for key in AXOLOTL if not off(ledger.get(key))]


def _factory(ledger: Ledger) -> list[str]:
    return ["stage"] if ledger.word("stage") in STAGES else []


def _trl(ledger: Ledger) -> list[str]:
    """Keys that supervised training does not know; their values do not matter."""
    loss = ledger.get("loss_type")
    reasons = load("trl").reasons
    keys = [key for key in ledger.document.value if reasons.get(key, "").startswith(SUPERVISED)]
    return (["loss_type"] if loss is not None and loss not in ANSWERS else []) + keys


def _torchtune(ledger: Ledger) -> list[str]:
    keys = ["loss._component_"] if ".rlhf." in ledger.word("loss._component_") else []
    keys += ["dataset._component_"] if ledger.word("dataset._component_").rpartition(".")[2] in PAIRS else []
    return keys + [key for key in TORCHTUNE if ledger.has(key)]
