"""The recipe's schema as one tree: every `$ref` is written out, and a `oneOf` can be followed by the value at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from . import resources
from .position import Pointer

Node = Mapping[str, Any]

ROOT = "recipe.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
OF_A_FILE = ("$schema", "$ref", "$defs")  # what may not stand, or says nothing, inside the one tree
NAMES: Mapping[type, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
    list: ("array",),
    dict: ("object",),
    type(None): ("null",),
}


@cache
def load(folder: Path | None = None) -> Node:
    """The root of the schema, made of the files in `folder` (the shipped ones). Treat it as read-only."""
    root: Node = _expand({"$ref": ROOT}, folder or resources.schemas(), "", {})
    return root


def bundled() -> dict[str, Any]:
    """The schema as one self-contained JSON Schema document."""
    return {"$schema": DIALECT, **load()}


def _expand(node: Any, folder: Path, file: str, read: dict[str, Any]) -> Any:
    """Write out `$ref`s; a key beside a `$ref` (description, default, examples) wins over the target's."""
    if isinstance(node, list):
        return [_expand(item, folder, file, read) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _expand(value, folder, file, read) for key, value in node.items() if key not in OF_A_FILE}
    if "$ref" not in node:
        return own
    name, _, inside = node["$ref"].partition("#")
    target = _file(folder, name or file, read)
    for part in inside.split("/")[1:]:
        target = target[part]
    return {**_expand(target, folder, name or file, read), **own}


def _file(folder: Path, name: str, read: dict[str, Any]) -> Any:
    if name not in read:
        read[name] = json.loads((folder / name).read_text(encoding="utf-8"))
    return read[name]


def kinds(value: Any) -> tuple[str, ...]:
    """The JSON types of a value, the nearest first; 1.0 is a whole number too, true is none."""
    whole = isinstance(value, float) and value.is_integer()
    return ("number", "integer") if whole else NAMES[type(value)]


def types(node: Node) -> tuple[str, ...]:
    """The JSON types a node without `oneOf` takes; empty when it takes any."""
    if "const" in node:
        return kinds(node["const"])
    named = node.get("type", ())
    return (named,) if isinstance(named, str) else tuple(named)


def branches(node: Node) -> tuple[Node, ...]:
    """The branches of a `oneOf`, or the node alone."""
    return tuple(node["oneOf"]) if "oneOf" in node else (node,)


def discriminator(node: Node) -> str | None:
    """The key whose constant tells the object branches of a `oneOf` apart."""
    objects = [branch for branch in branches(node) if "properties" in branch]
    if len(objects) < 2:
        return None
    constants: Iterator[str] = (key for key, below in objects[0]["properties"].items() if "const" in below)
    return next(constants)


def branch(node: Node, value: Any) -> Node | None:
    """The branch meant by `value`: by its discriminator, else by its JSON type; None when there is none."""
    fitting = [one for one in branches(node) if not types(one) or set(types(one)) & set(kinds(value))]
    key = discriminator(node)
    if key is not None and isinstance(value, dict):
        fitting = [one for one in fitting if value.get(key) == one["properties"][key]["const"]]
    return fitting[0] if fitting else None


def child(node: Node, part: str | int) -> Node | None:
    """What the schema says of a key or item of an object or array branch; None when it has no such key."""
    if isinstance(part, int):
        below = node.get("items")
    else:
        below = node.get("properties", {}).get(part) or node.get("additionalProperties")
    return below or None


def find(pointer: Pointer) -> tuple[Node, ...]:
    """Every node that `pointer` can mean, one for each branch that has the key; empty when there is none."""
    nodes: tuple[Node, ...] = (load(),)
    for part in pointer:
        below = [child(one, part) for node in nodes for one in branches(node)]
        nodes = tuple(node for node in below if node is not None)
    return nodes


def values(node: Node) -> dict[str, Any]:
    """Our values for what others write at this place (`x-values`), by their text; of all its branches."""
    found: dict[str, Any] = {}
    for one in (node, *branches(node)):
        found |= one.get("x-values", {})
    return found


@cache
def every() -> tuple[tuple[tuple[str, ...], Node], ...]:
    """Every key of a recipe, as `walk` meets it."""
    return tuple(walk(load()))


def walk(node: Node, pointer: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Every key of the schema below `node` with its place; an item of a list is written `[]`."""
    for one in branches(node):
        for name, below in one.get("properties", {}).items():
            yield (*pointer, name), below
            yield from walk(below, (*pointer, name))
        if "items" in one:
            yield from walk(one["items"], (*pointer, "[]"))
