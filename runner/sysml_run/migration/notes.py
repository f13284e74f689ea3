"""What was not carried and what to look at, as lines of text: behind the recipe and on the screen."""

from __future__ import annotations

import re

from sysml_run.position import Pointer, dotted
from sysml_run.wording import shown

from .ledger import EMPTY, Ledger, bare
from .names import Names, load
from .values import off, truth

NO_EQUAL = "no equal in the recipe language"
PREFIX = re.compile("^no equal( yet)?: ")
UNKNOWN = {
    "axolotl": "unknown to axolotl too, which drops it without a word",
    "llama-factory": "unknown to LLaMA-Factory too, which refuses it",
    "trl": "unknown to trl too, which refuses it",
    "torchtune": "unknown to torchtune too, which passes over it or refuses it",
}


def rest(ledger: Ledger) -> None:
    """List every leaf that nothing has carried, each with its reason, and say first what changes what is learnt."""
    names = load(ledger.tool)
    for leaf in ledger.open():
        why = _why(ledger, names, leaf)
        ledger.listed[leaf] = why
        name = names.mark(bare(leaf))
        if name and not off(ledger.leaves[leaf]) and ledger.leaves[leaf] not in EMPTY:
            reason = PREFIX.sub("", names.why(name) or NO_EQUAL)
            words = f"{name}: changes what is learnt and is not carried: {reason}"
            ledger.look += [words] if words not in ledger.look else []


def listed(ledger: Ledger) -> list[str]:
    """`LINE KEY = VALUE: WHY` for each leaf that was not carried, in file order."""
    found = sorted(ledger.listed.items(), key=lambda item: (ledger.line(item[0]), dotted(item[0])))
    width = len(str(max((ledger.line(leaf) for leaf, _ in found), default=0)))
    return [f"{ledger.line(leaf):>{width}}  {dotted(leaf)}{_value(ledger, leaf)}: {why}" for leaf, why in found]


def count(ledger: Ledger) -> str:
    """`12 of 20 keys carried, 8 listed with the reason why not`."""
    total, carried = len(ledger.leaves), len(ledger.carried)
    return f"{carried} of {total} values carried, {len(ledger.listed)} listed with the reason why not"


def _why(ledger: Ledger, names: Names, leaf: Pointer) -> str:
    name, value = bare(leaf), ledger.leaves[leaf]
    strange = names.unknown(name)
    if strange is not None:
        near = names.nearest(strange)
        return _stranger(ledger, strange) + (f"; did you mean {near}?" if near else "")
    reason = names.why(name) or NO_EQUAL
    if any(value == nothing and type(value) is type(nothing) for nothing in EMPTY):
        return "empty: nothing to carry"
    if truth(value) is False and reason.startswith("no equal"):
        return "off: nothing to carry"
    return reason


def _stranger(ledger: Ledger, name: str) -> str:
    """What is said of a key that is in no list; the arguments of torchtune's classes are in none."""
    section = name.rpartition(".")[0]
    built = ledger.get(f"{section}._component_") if section and ledger.tool == "torchtune" else None
    return f"no equal: an argument of {built}" if built else UNKNOWN[ledger.tool]


def _value(ledger: Ledger, leaf: Pointer) -> str:
    value = ledger.leaves[leaf]
    if any(value == nothing and type(value) is type(nothing) for nothing in EMPTY):
        return ""
    return f" = {shown(value)}"
