"""A recipe's text made fit for another file: its name, the paths that count from it, and its schema for editors.

The text is edited where those values stand, so that comments, order and spelling stay as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import resources
from .document import Document, Pointer, dotted, parse
from .errors import RecipeError
from .resolve import ELSEWHERE, PATH
from .rules import there
from .schema import ROOT, Node, branch, child, load
from .yaml12 import LINE_BREAK, LOADER, plain

MODELINE = re.compile(r"^#[ \t]*yaml-language-server:[ \t]*\$schema=(\S+)", re.MULTILINE)
ADDRESS = re.compile(r"https?://")
BARE = re.compile(r"[\w./][\w./-]*")
OF_HERE = "a path of this machine"
NOTHING = "nothing is here: name your own"
FIXED = (*ELSEWHERE, "/", "~")  # how a path starts that does not count from the recipe


@dataclass(frozen=True)
class Adapted:
    """The new text, a line for each value that changed or is noted, and whether ROOT is to be written beside it."""

    text: str
    changes: tuple[str, ...]
    wants_schema: bool


def adapt(document: Document, file: Path) -> Adapted:
    """What `document`, which must be valid, is to say when it stands in `file`."""
    text, told = document.text, []
    spans = _spans(text)
    for at, value, note in reversed(list(_changes(document, file))):
        place = document.values[at]
        if span := spans.get((place.line, place.column)):  # else an alias, whose anchor stands elsewhere
            text, rest = text[: span[0]] + _written(value), text[span[1] :]
            text = _noted(text, rest, note) if note else text + rest
            told.append(f"{dotted(at)} = {value}" + (f"  # {note}" if note else ""))
    return _with_schema(text, tuple(reversed(told)), file)


def _changes(document: Document, file: Path) -> Iterator[tuple[Pointer, str, str | None]]:
    """What must differ or be noted, in the order of the text."""
    folder = Path(document.source).parent
    found = {at: _moved(value, kind, folder, file.parent) for at, value, kind in _paths(load(), document.value, ())}
    named = load()["properties"]["name"]
    if re.search(named["pattern"], file.stem) and len(file.stem) <= named["maxLength"]:
        found[("name",)] = file.stem, None
    order = {at: number for number, at in enumerate(document.values)}
    for at in sorted(found, key=lambda at: order[at]):
        value, note = found[at]
        if note or value != _value(document.value, at):
            yield at, value, note


def _paths(node: Node, value: Any, at: Pointer) -> Iterator[tuple[Pointer, str, Any]]:
    """Every path in a valid value, with its place and the kind that the schema gives it."""
    chosen = branch(node, value) or {}
    if isinstance(value, str) and "x-path" in chosen:
        yield at, value, chosen["x-path"]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, below in items:
        yield from _paths(child(chosen, part) or {}, below, (*at, part))


def _moved(path: str, kind: Any, before: Path, after: Path) -> tuple[str, str | None]:
    """The path from the new folder, as written where nothing lies there, and what is to be noted of it."""
    here = os.path.normpath((before / path).absolute())
    if path.startswith(FIXED) or (kind == "model" and not path.startswith(PATH) and not there(here)):  # the hub's id
        return path, None
    if not there(here):
        return path, NOTHING
    moved = _relative(here, after)
    return moved, OF_HERE if moved.startswith(os.sep) else None


def _noted(text: str, rest: str, note: str) -> str:
    """Both, with a comment at the end of the line where they meet, unless that line ends within a text."""
    found = LINE_BREAK.search(rest)
    end = found.start() if found else len(rest)
    noted = f"{text}{rest[:end]}  # {note}{rest[end:]}"
    try:
        same = bool(parse(noted, "").value == parse(text + rest, "").value)
    except RecipeError:
        same = False
    return noted if same else text + rest


def _relative(path: str, folder: Path) -> str:
    """From `folder`, or absolute where the two share no more than the root."""
    start = str(folder.absolute())
    return path if os.path.commonpath([path, start]) == os.sep else os.path.relpath(path, start)


def _spans(text: str) -> dict[tuple[int | None, int | None], tuple[int, int]]:
    """Where the scalars of the text start and end, by the line and column of each; an anchor before one is left out."""
    starts = [0, *(found.end() for found in LINE_BREAK.finditer(text))]
    spans: dict[tuple[int | None, int | None], tuple[int, int]] = {}
    for event in yaml.parse(text, Loader=LOADER):
        first, last = event.start_mark, event.end_mark
        if isinstance(event, yaml.ScalarEvent) and first is not None and last is not None:
            anchored = len(f"&{event.anchor} ") if event.anchor else 0
            start, end = starts[first.line] + first.column + anchored, starts[last.line] + last.column
            written = text[start:end].rstrip()  # a block of text ends after its line
            spans[first.line + 1, first.column + 1] = start, start + len(written)
    return spans


def _written(value: str) -> str:
    """A text as YAML reads it back, in a block and in braces."""
    bare = BARE.fullmatch(value) is not None and plain(value) == value
    return value if bare else json.dumps(value, ensure_ascii=False)


def _value(value: Any, at: Pointer) -> Any:
    for part in at:
        value = value[part]
    return value


def _with_schema(text: str, changes: tuple[str, ...], file: Path) -> Adapted:
    """Name the schema for editors: the project's own by a relative path, else one that goes with the recipe.

    An installed package is not named: its path holds on one machine, until the next virtual environment.
    """
    found = MODELINE.search(text)
    if found and ADDRESS.match(found[1]):
        return Adapted(text, changes, False)
    project = resources.schemas().parent
    own = project != resources.PACKAGE and file.absolute().is_relative_to(project)
    line = f"# yaml-language-server: $schema={_relative(str(project / 'schemas' / ROOT), file.parent) if own else ROOT}"
    text = text[: found.start()] + line + text[found.end() :] if found else f"{line}\n{text}"
    return Adapted(text, changes, not own)
