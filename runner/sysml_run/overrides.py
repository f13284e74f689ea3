"""Changes from the command line: `--set a.b=c` and `--hardware H`; every value keeps its source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import document as documents
from .document import Document
from .errors import RecipeError, UsageError
from .position import Pointer, Position, dotted

GPU = re.compile(r"(?:(?:(?P<nodes>\d+)x)?(?P<devices>\d+)(?:x(?=[a-z])|$))?(?P<type>[a-z][a-z0-9._-]*)?")
FORMS = "write cpu, cpu:2, gpu, gpu:8xh100-80gb, gpu:2x8xh100-80gb (two machines) or tpu:v3-8"


def apply(document: Document, assignments: Sequence[str]) -> Document:
    """Make each `a.b=c`, c being YAML, in order. Raises UsageError."""
    for assignment in assignments:
        document = _assign(document, assignment)
    return document


def set_value(document: Document, pointer: Pointer, value: Any, source: str) -> Document:
    """Replace what stands at `pointer`; absent sections are made. Raises UsageError where it cannot stand.

    The new value's positions name `source` and no line; the given document is left as it is.
    """
    changed = _put(document.value, pointer, value, pointer)
    depth = len(pointer)
    keys = {at: place for at, place in document.keys.items() if at[:depth] != pointer}
    values = {at: place for at, place in document.values.items() if at[:depth] != pointer}
    place = Position(source)
    for at in _made(document.value, pointer):
        keys[at] = values[at] = place
    for at in _below(value, pointer):
        keys[at] = values[at] = place
    return replace(document, value=changed, keys=keys, values=values)


def swap_hardware(document: Document, spec: str) -> Document:
    """Replace `hardware` by what `spec` says in short. Raises UsageError."""
    return set_value(document, ("hardware",), _hardware(spec), f"--hardware {spec}")


def _assign(document: Document, assignment: str) -> Document:
    name, equals, text = assignment.partition("=")
    source = f"--set {assignment}"
    try:
        pointer = documents.pointer(name.strip())
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from None
    if not equals or not pointer:
        raise UsageError(f"{source}: a key and a value are wanted", "write --set optimizer.learning_rate=1e-4")
    try:
        value = documents.parse(text, source).value if text.strip() else None
    except RecipeError as error:
        raise UsageError(f"{source}: {error.problems[0].message}", error.hint) from None
    return set_value(document, pointer, value, source)


def _put(tree: Any, rest: Pointer, value: Any, whole: Pointer) -> Any:
    """A copy of `tree` with `value` at `rest`; what is not on the way is shared."""
    if not rest:
        return value
    first, below = rest[0], rest[1:]
    where = dotted(whole[: len(whole) - len(rest)]) or "the recipe"
    if isinstance(tree, list):
        if not isinstance(first, int) or first >= len(tree):
            raise UsageError(f"cannot set {dotted(whole)}: {where} has items 0 to {len(tree) - 1}, not {first}")
        return [_put(item, below, value, whole) if at == first else item for at, item in enumerate(tree)]
    if not isinstance(tree, dict | None) or isinstance(first, int):
        kind = "a section" if isinstance(tree, dict) else "not written" if tree is None else "a single value"
        wanted = "a list" if isinstance(first, int) else "a section"
        raise UsageError(f"cannot set {dotted(whole)}: {where} is {kind}, not {wanted}")
    tree = tree or {}
    return {**tree, first: _put(tree.get(first), below, value, whole)}


def _made(tree: Any, pointer: Pointer) -> list[Pointer]:
    """The sections on the way to `pointer` that are not there yet."""
    made = []
    for depth, part in enumerate(pointer[:-1]):
        tree = tree[part] if isinstance(part, int) else (tree or {}).get(part)
        if tree is None:
            made.append(pointer[: depth + 1])
    return made


def _below(value: Any, pointer: Pointer) -> list[Pointer]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [pointer, *(at for part, below in items for at in _below(below, (*pointer, part)))]


def _hardware(spec: str) -> dict[str, Any]:
    kind, colon, rest = spec.partition(":")
    if kind == "cpu" and (rest.isdecimal() or not colon):
        return {"accelerator": "cpu", "devices": int(rest or 1)}
    if kind == "tpu" and rest:
        return {"accelerator": "tpu", "topology": rest}
    found = GPU.fullmatch(rest) if kind == "gpu" and (rest or not colon) else None
    if found is None:
        raise UsageError(f"--hardware {spec}: not understood", FORMS)
    numbers = {name: int(found[name]) for name in ("devices", "nodes") if found[name]}
    return {"accelerator": "gpu", **numbers, **({"type": found["type"]} if found["type"] else {})}
