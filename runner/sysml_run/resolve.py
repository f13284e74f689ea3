"""A valid document -> the typed recipe: defaults filled in from the schema, paths made absolute, sources kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import recipe as types
from .document import Document
from .position import Pointer, dotted
from .recipe import Recipe
from .schema import Node, branch, child, load

DEFAULT = "default"
ELSEWHERE = ("hub:", "package:", "tiny:")
PATH = (".", "/", "~")


@dataclass(frozen=True)
class Resolved:
    """`values` holds every key of `recipe` as plain JSON values; `sources` says where each leaf comes from."""

    recipe: Recipe
    values: dict[str, Any]
    sources: dict[str, str]


def resolve(document: Document) -> Resolved:
    """Fill in a document that `validate.check` finds no error in."""
    values = _fill(load(), document.value, (), document)
    sources = {dotted(pointer): _source(document, pointer) for pointer in _leaves(values, ())}
    return Resolved(build(values), values, sources)


def build(values: Mapping[str, Any]) -> Recipe:
    """The typed recipe from resolved plain values, such as those of `recipe.json`."""
    made = _typed(load(), values)
    assert isinstance(made, Recipe)
    return made


def _fill(node: Node, value: Any, pointer: Pointer, document: Document) -> Any:
    node = _chosen(node, value)
    if isinstance(value, dict):
        return _object(node, value, pointer, document)
    if isinstance(value, list):
        return [_fill(node.get("items", {}), item, (*pointer, at), document) for at, item in enumerate(value)]
    return _scalar(node, value, pointer, document)


def _object(node: Node, value: dict[str, Any], pointer: Pointer, document: Document) -> dict[str, Any]:
    """Keys in the schema's order, absent ones by default; in an open object the keys as written."""
    filled = {}
    for name in node.get("properties", value):
        below = child(node, name) or {}
        written = value[name] if name in value else below["default"]
        filled[name] = _fill(below, written, (*pointer, name), document)
    return filled


def _scalar(node: Node, value: Any, pointer: Pointer, document: Document) -> Any:
    """One spelling for each value: 1 and 1.0 are the same number, and a path is absolute."""
    if "x-path" in node and isinstance(value, str):
        return _absolute(value, node["x-path"], document, pointer)
    if "const" in node:
        return node["const"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    kinds = node.get("type", ())
    if "number" in kinds:
        return float(value)
    return int(value) if "integer" in kinds else value


def _absolute(value: str, kind: Any, document: Document, pointer: Pointer) -> str:
    """A path in the file counts from the file, one of the command line from the current folder.

    A model (`x-path: model`) that is not there is a hub id unless it is written as only a path can be.
    """
    written = document.place(pointer).source == document.source
    folder = (document.folder or Path(document.source).parent) if written else Path()
    path = os.path.normpath((folder / _home(value)).absolute())  # links are kept: what they lead to has other names
    hub = kind == "model" and not value.startswith(PATH) and not exists(path)
    return value if hub or value.startswith(ELSEWHERE) else path


def exists(path: str) -> bool:
    """Whether something can be reached at `path`; pathlib's fails on a closed folder and on a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110


def _home(value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:  # no such user
        return Path(value)


def _chosen(node: Node, value: Any) -> Node:
    chosen = branch(node, value)
    assert chosen is not None
    return chosen


def _leaves(value: Any, pointer: Pointer) -> Iterator[Pointer]:
    """Scalars, and lists and objects that hold nothing."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for part, below in items:
            yield from _leaves(below, (*pointer, part))
    else:
        yield pointer


def _source(document: Document, pointer: Pointer) -> str:
    written = document.values.get(pointer)
    return DEFAULT if written is None else written.label()


def _typed(node: Node, value: Any) -> Any:
    chosen = _chosen(node, value)
    if isinstance(value, list):
        return tuple(_typed(chosen.get("items", {}), item) for item in value)
    if not isinstance(value, dict):
        return value
    below = {name: _typed(child(chosen, name) or {}, item) for name, item in value.items()}
    return getattr(types, chosen["title"])(**below) if "properties" in chosen else below
