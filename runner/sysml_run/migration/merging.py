"""Read a configuration that may have YAML 1.1's merge keys (<<), which recipes do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sysml_run import document as documents
from sysml_run.document import Document
from sysml_run.errors import RecipeError
from sysml_run.position import Pointer, Position
from sysml_run.yaml12 import LOADER

MERGE = "<<"


def load(path: Path) -> Document:
    """The document, what is merged into a section standing in it. Raises RecipeError as `document.load` does."""
    try:
        return documents.load(path)
    except RecipeError:
        if not path.is_file():
            raise
        with path.open("rb") as file:
            text = documents.decode(file.read(documents.MAX_BYTES + 1), str(path))
        quoted = _quoted(text)
        if quoted == text:
            raise
        return _merged(documents.parse(quoted, str(path)))


def _quoted(text: str) -> str:
    """The text with its merge keys in quotes, which makes them keys like any other; as it is if it is no YAML."""
    try:
        marks: list[Any] = [event.start_mark for event in yaml.parse(text, Loader=LOADER) if _is_merge(event)]
    except yaml.YAMLError:
        return text
    lines = text.splitlines(keepends=True)
    for mark in reversed(marks):
        line = lines[mark.line]
        lines[mark.line] = f'{line[: mark.column]}"{MERGE}"{line[mark.column + len(MERGE) :]}'
    return "".join(lines)


def _is_merge(event: Any) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.value == MERGE and event.implicit[0]


def _merged(document: Document) -> Document:
    keys: dict[Pointer, Position] = {}
    values: dict[Pointer, Position] = {}

    def moved(value: Any, origin: Pointer, place: Pointer) -> Any:
        """The value, which stands at `origin` in the file, as it is at `place` once merged."""
        for known, made in ((document.keys, keys), (document.values, values)):
            if origin in known:
                made[place] = known[origin]
        if isinstance(value, list):
            return [moved(below, (*origin, at), (*place, at)) for at, below in enumerate(value)]
        if not isinstance(value, dict):
            return value
        return {name: moved(below, start, (*place, name)) for name, (below, start) in _members(value, origin).items()}

    value = moved(document.value, (), ())
    return replace(document, value=value, keys=keys, values=values)


def _members(value: dict[str, Any], origin: Pointer) -> dict[str, tuple[Any, Pointer]]:
    """The keys of a section and those merged into it, each with its place in the file: its own first, then in order."""
    found = {name: (below, (*origin, name)) for name, below in value.items()}
    given, at = value.get(MERGE), (*origin, MERGE)
    merged: list[tuple[Any, Pointer]] = [(given, at)]
    if isinstance(given, list):
        merged = [(below, (*at, number)) for number, below in enumerate(given)]
    if MERGE not in value or not all(isinstance(below, dict) for below, _ in merged):
        return found
    del found[MERGE]
    for below, start in merged:
        found |= {name: member for name, member in _members(below, start).items() if name not in found}
    return found
