"""Make the recipe valid: what it must have is filled in, what the language refuses is taken out and listed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sysml_run import document as documents
from sysml_run import rules, validate
from sysml_run.document import Document
from sysml_run.errors import Problem
from sysml_run.position import Pointer, dotted, pointer
from sysml_run.resolve import resolve
from sysml_run.schema import find
from sysml_run.wording import flow, shown

from . import write
from .ledger import Ledger

NEEDED = {
    "model.base_model": ("tiny:llama", "the base model"),
    "datasets.0.path": ("rows.jsonl", "where the rows are"),
    "datasets.0.type": ("messages", "what a row is"),
    "optimizer.name": ("adamw", "the optimizer"),
    "optimizer.learning_rate": (2e-4, "the learning rate"),
}
GIVEN = ("version", "name", *NEEDED)
Taken = tuple[Pointer, str, bool]  # the entry, what is said of it, and whether another value stands there now


def settle(ledger: Ledger, name: str, target: Path) -> list[Problem]:
    """Fill in and take out until the recipe, to stand at `target`, is valid; returns errors that no value makes."""
    taken: list[Taken] = []
    while True:
        _complete(ledger, name)
        document = documents.parse(write.recipe(ledger.entries, ledger.sections), str(target))
        errors = _errors(document)
        found = [one for problem in _from_the_end(errors) for one in _take_out(ledger, problem)]
        if not found:
            values = {} if errors else resolve(document).values
            ledger.look += [
                f"{words}{_holds(values, place) if whole else ''}"
                for place, words, whole in taken
                if dotted(place) not in NEEDED  # what fills their place is said already
            ]
            return errors
        taken += reversed(found)


def recipe_name(stem: str) -> str:
    """The file's name in the letters that a recipe's name may have."""
    made = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")
    return made[:100] or "migrated"


def _complete(ledger: Ledger, name: str) -> None:
    ledger.make("version", 1, "the version of the recipe language")
    ledger.make("name", name, "from the file's name")
    for target, (value, what) in NEEDED.items():
        if pointer(target) not in ledger.entries:
            ledger.make(target, value, f"not in the {ledger.tool} file: write {what}")
            ledger.look.append(
                f"{target}: {what} is not in the file or could not be used; {value} only fills the place"
            )
    if not any(("training", key) in ledger.entries for key in ("num_epochs", "max_steps")):
        ledger.make("training.num_epochs", 1, f"not in the {ledger.tool} file")


def _errors(document: Document) -> list[Problem]:
    found = validate.check(document)
    if not any(problem.severity == "error" for problem in found):
        found = rules.check(resolve(document).recipe, document, running=False)
    return [problem for problem in found if problem.severity == "error"]


def _from_the_end(errors: Sequence[Problem]) -> list[Problem]:
    """The first error of each place, later items of a list before earlier ones, so that numbers of items stay right."""
    first = {problem.pointer: problem for problem in reversed(errors)}
    return sorted(first.values(), key=lambda one: [str(part).zfill(9) for part in pointer(one.pointer)], reverse=True)


def _take_out(ledger: Ledger, problem: Problem) -> Iterator[Taken]:
    """Drop the values that an error points at; those filled in here are right and stay."""
    at = pointer(problem.pointer)
    why = f"{problem.pointer}: {problem.message}{f'; {problem.hint}' if problem.hint else ''}"
    for place in _blamed(ledger, at):
        value = ledger.entries[place].value
        if _free_list(place, value) and at[:-1] == place and len(value) > 1:
            item = int(at[-1])
            ledger.drop_item(place, item, why)
            yield place, f"{dotted(place)}: {flow(value[item])} is left out: {problem.message}", False
        else:
            ledger.drop(place, why)
            told = flow(value) if isinstance(value, list) else shown(value)
            yield place, f"{dotted(place)}: {told} is not carried: {problem.message}", True


def _free_list(place: Pointer, value: Any) -> bool:
    """A list of as many items as wanted, so that one may go."""
    return isinstance(value, list) and not any("maxItems" in node for node in find(place))


def _holds(values: Mapping[str, Any], place: Pointer) -> str:
    """What stands there now that nothing is written; nothing where the key has no meaning beside the others."""
    below: Any = values
    for depth, part in enumerate(place):
        if below is None:
            return f"; there is no {dotted(place[:depth])}"
        known = isinstance(below, dict) and part in below
        if not known:
            return ""
        below = below[part]
    return f"; {flow(below)} stands in its place"


def _blamed(ledger: Ledger, at: Pointer) -> list[Pointer]:
    """The entry at `at`, or the nearest one that holds it, or those inside it; none where that is a placeholder."""
    above = [at[:depth] for depth in range(len(at), 0, -1) if at[:depth] in ledger.entries][:1]
    inside = [place for place in ledger.entries if place[: len(at)] == at] if len(at) > 1 else []
    return [place for place in above or inside if not ledger.entries[place].origin.startswith("not in the ")]
