"""A configuration file -> the text of a recipe and the report on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sysml_run.document import Document
from sysml_run.errors import Problem

from . import axolotl, detect, fit, llamafactory, merging, notes, preference, torchtune, trl, write
from .ledger import Ledger
from .paths import Folders

TOOLS: Mapping[str, Callable[[Ledger, Folders], None]] = {
    "axolotl": axolotl.carry,
    "llama-factory": llamafactory.carry,
    "torchtune": torchtune.carry,
    "trl": trl.carry,
}


@dataclass(frozen=True)
class Migrated:
    """`recipe` is YAML; `report` says what was not carried; `problems` are errors left in the recipe."""

    recipe: str
    report: str
    problems: tuple[Problem, ...]


def convert(source: Path, tool: str | None, target: Path | None) -> Migrated:
    """Read `source`; the recipe is made to stand at `target`, without it beside `source`.

    Raises RecipeError for a file that cannot be read, UsageError for one that is no configuration of a known tool.
    """
    document = merging.load(source)
    detect.mapping(document.value, str(source))
    named = tool or detect.tool(document.value, str(source))
    ledger, problems = settle(document, named, target or source.with_suffix(".recipe.yaml"), target is not None)
    return Migrated(_text(ledger, source), _report(ledger, source), tuple(problems))


def settle(document: Document, tool: str, target: Path, named: bool) -> tuple[Ledger, list[Problem]]:
    """Settle every value of the document; the recipe's name is `target`'s if that was `named` by the user."""
    source = Path(document.source)
    ledger = Ledger(torchtune.interpolated(document) if tool == "torchtune" else document, tool)
    TOOLS[tool](ledger, Folders(source.parent, target.parent))
    preference.announce(ledger)
    problems = fit.settle(ledger, fit.recipe_name((target if named else source).stem), target)
    notes.rest(ledger)
    return ledger, problems


def _text(ledger: Ledger, source: Path) -> str:
    head = write.comment(f"From {ledger.tool}'s {source.name}: {notes.count(ledger)} at the end.")
    look = (
        ["# Look at:", *(line for one in _looks(ledger) for line in write.comment(f"  {one}"))] if ledger.look else []
    )
    tail = [line for one in notes.listed(ledger) for line in write.comment(one)]
    body = write.recipe(ledger.entries, ledger.sections)
    end = ["", f"# Not carried from {source.name} (line, key, value, why):", *tail, ""] if tail else [""]
    return "\n".join([*head, *look, body.rstrip("\n"), *end])


def _report(ledger: Ledger, source: Path) -> str:
    lines = [f"{source} is a configuration of {ledger.tool}: {notes.count(ledger)}"]
    lines += ["", "look at:", *(f"  {one}" for one in _looks(ledger))] if ledger.look else []
    told = notes.listed(ledger)
    return "\n".join([*lines, *(["", "not carried (line, key, value, why):", *told] if told else []), ""])


def _looks(ledger: Ledger) -> list[str]:
    return list(dict.fromkeys(ledger.look))
