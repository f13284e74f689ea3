"""Which layers get an adapter, as PEFT reads it: a group, names, or a regular expression over full names."""

from __future__ import annotations

import re
from itertools import product

from .ledger import Ledger

TARGET = "lora.target_modules"
GROUP = r"\((?:\?:)?\w+(?:\|\w+)*\)"
DOT = r"\\?\."
NUMBER = r"(?:\\d|\[(?:\\d|0-9)\])[+*]"
STEP = rf"(?:(?:\.\*)?[A-Za-z_]\w*|\((?:\?:)?[A-Za-z_]\w*(?:\|[A-Za-z_]\w*)*\)|{NUMBER}|\.\*)"
NAME = re.compile(rf"(?P<path>(?:{STEP}{DOT})*|\.\*|\((?:\?:)?\.\*{DOT}\)\??)(?P<name>(?:\w+|{GROUP}|\[[A-Za-z]+\])+)")
PIECE = re.compile(rf"{GROUP}|\[[A-Za-z]+\]|\w+")
ANYWHERE = re.compile(rf"(?:\.\*(?:{DOT})?|\((?:\?:)?\.\*{DOT}\)\??)?")
EXPERTS = ("w1", "w2", "w3")  # Mixtral's, in models written before transformers 5


def carry(ledger: Ledger, name: str, *also: str) -> None:
    """Write what `name` of the source means, if it says anything; `also` are keys that say the same."""
    said = ledger.get(name)
    if said in ("all-linear", ["all-linear"]):
        ledger.carry(TARGET, "all-linear", name, *also)
    elif isinstance(said, str):
        _text(ledger, name, said)
    elif said is not None:
        ledger.carry(TARGET, said, name)
        _experts(ledger, said)


def expanded(expression: str) -> tuple[list[str], bool] | None:
    """The names that a simple regular expression ends in, and whether it takes them wherever they are.

    None for one that is more than a path, alternatives and a letter out of several.
    """
    found = [NAME.fullmatch(one) for one in _alternatives(expression.removeprefix("^").removesuffix("$"))]
    names: list[str] = []
    for one in found:
        if one is None:
            return None
        names += ["".join(parts) for parts in product(*map(_choices, PIECE.findall(one["name"])))]
    return list(dict.fromkeys(names)), all(one is not None and ANYWHERE.fullmatch(one["path"]) for one in found)


def _text(ledger: Ledger, name: str, said: str) -> None:
    """Names with commas between them, or one expression."""
    listed = [one.strip() for one in said.split(",") if one.strip()]
    if all(re.fullmatch(r"[\w.-]+", one) for one in listed):
        ledger.carry(TARGET, listed, name)
        _experts(ledger, listed)
        return
    made = expanded(said)
    if made is None:
        ledger.leave(name, "recipes name layers one by one, and this expression could not be written so")
        ledger.make(TARGET, "attention", f"a guess: write the layers that {ledger.tool} would adapt")
        ledger.look.append(f"{TARGET}: attention is a guess; name the layers that {said} matches")
        return
    ledger.carry(TARGET, made[0], name, note="its names, one by one")
    if not made[1]:
        ledger.look.append(f"{TARGET}: these names are adapted wherever they are, not only where {said} finds them")


def _experts(ledger: Ledger, names: object) -> None:
    if isinstance(names, list) and set(EXPERTS) & {name for name in names if isinstance(name, str)}:
        words = "Mixtral's experts have no names of their own; all-linear has them, with the router and without dropout"
        ledger.look.append(f"{TARGET}: {words}")


def _alternatives(expression: str) -> list[str]:
    """The sides of each | that stands in no brackets."""
    sides, depth = [""], 0
    for letter in expression:
        depth += (letter in "([") - (letter in ")]")
        if letter == "|" and not depth:
            sides.append("")
        else:
            sides[-1] += letter
    return sides


def _choices(piece: str) -> list[str]:
    if piece.startswith("("):
        return piece.removeprefix("(").removeprefix("?:").removesuffix(")").split("|")
    return list(piece[1:-1]) if piece.startswith("[") else [piece]
