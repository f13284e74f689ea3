"""What is said of a value that breaks the schema, and the hint that goes with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from .position import Pointer, dotted
from .schema import Node, branches, discriminator, kinds, load, types, walk
from .yaml12 import plain

LIMITS = {
    "minimum": "must be at least {limit}, got {value}",
    "exclusiveMinimum": "must be more than {limit}, got {value}",
    "maximum": "must be at most {limit}, got {value}",
    "exclusiveMaximum": "must be less than {limit}, got {value}",
    "minItems": "has too few items: {length}, and {limit} is the least",
    "maxItems": "has too many items: {length}, and {limit} is the most",
    "minLength": "is too short: {length} characters, and {limit} is the least",
    "maxLength": "is too long: {length} characters, and {limit} is the most",
    "pattern": "{value} is not in the form wanted",
}
KINDS = {
    "object": "a section of keys",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
LONGEST = 60


def shown(value: Any) -> str:
    """A value as it is written in YAML, in short."""
    if isinstance(value, dict | list):
        return KINDS[kinds(value)[0]]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, int) and not math.isfinite(_size(value)):
        return "a number past 1.8e308"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...{text[-1]}"


def unexpected(schema: Node, value: Any) -> tuple[str, str | None]:
    """Message and hint for a value of a kind, or outside the names, that `schema` takes."""
    return f"expected {expected(schema)}, got {shown(value)}", _mend(schema, value)


def refused(keyword: str, schema: Node, chosen: Node, value: Any) -> tuple[str, str | None]:
    """Message and hint for a value that `keyword` of the chosen branch refuses."""
    if keyword not in LIMITS:
        return unexpected(schema, value)
    length = len(value) if isinstance(value, list | str) else -1
    if length == 0 and keyword != "pattern":
        return "is empty", example(schema)
    message = LIMITS[keyword].format(limit=shown(chosen[keyword]), value=shown(value), length=length)
    return message, f"{schema['description']} Example: {_flow(schema['examples'][0])}" if keyword == "pattern" else None


def unknown(schema: Node, chosen: Node, name: str, pointer: Pointer) -> tuple[str, str | None, str | None]:
    """Message, hint and the key probably meant (when it is one of this section) for a key that has no place here."""
    here = list(chosen["properties"])
    key = discriminator(schema)
    owners = [one for one in branches(schema) if name in one.get("properties", {})]
    if key is not None and owners:
        of = " or ".join(f"{key}: {one['properties'][key]['const']}" for one in owners)
        return f"unknown key for {key}: {chosen['properties'][key]['const']}", f"it belongs to {of}", None
    places = _elsewhere(name)
    if places:
        return "unknown key", f"it belongs {places}", None
    meant = closest(name, here)
    if meant:
        return "unknown key", f"did you mean {meant}?", meant
    far = closest(name, {path[-1] for path, _ in walk(load())})
    if far:
        return "unknown key", f"did you mean {far}? It belongs {_elsewhere(far)}", None
    return "unknown key", f"known here: {', '.join(here)}", None


def example(schema: Node, name: str = "") -> str | None:
    """`for example name: value`."""
    values = [*schema.get("examples", ()), *schema.get("enum", ())]
    return f"for example {name + ': ' if name else ''}{_flow(values[0])}" if values else None


def expected(schema: Node) -> str:
    """What `schema` takes: the allowed values where there is a list of them, else the kinds."""
    words: list[str] = []
    for one in branches(schema):
        names = one.get("enum", [one["const"]] if "const" in one else None)
        words += [_flow(name) for name in names] if names is not None else [KINDS[kind] for kind in types(one)]
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def closest(word: str, known: Iterable[str], likeness: float = 0.7) -> str | None:
    """The known word nearest in spelling, if any is as near as `likeness` (0..1, difflib's ratio)."""
    from difflib import get_close_matches

    by_lower = {name.lower().replace("-", "_"): name for name in known}
    found = get_close_matches(word.lower().replace("-", "_"), by_lower, 1, likeness)
    return by_lower[found[0]] if found else None


def _mend(schema: Node, value: Any) -> str | None:
    """What to write instead of a value of the wrong kind."""
    taken = {kind for one in branches(schema) for kind in types(one)}
    if value is None:
        return "write a value after the colon, or remove the line"
    if isinstance(value, str):
        return _mend_text(schema, taken, value)
    if "array" in taken:
        return "start each item with a dash" if isinstance(value, dict) else f"write a list: [{shown(value)}]"
    if "string" in taken and not isinstance(value, dict | list) and not _names(schema):
        return "put it in quotes to make it text"
    return None


def _mend_text(schema: Node, taken: set[str], value: str) -> str | None:
    key = discriminator(schema)
    if "boolean" in taken and value.lower() in TRUTH:
        return f"write {TRUTH[value.lower()]}"
    if taken & set(kinds(plain(value))) and not isinstance(plain(value), str):
        return f"write {value} without quotes"
    near = closest(value, _names(schema), 0.6)
    if near:
        return f"did you mean {near}?"
    if "array" in taken:
        return f"write a list: [{value}]"
    return f"write a section with {key}: {value}" if key and value in _constants(schema, key) else None


def _names(schema: Node) -> list[str]:
    return [name for one in branches(schema) for name in one.get("enum", ()) if isinstance(name, str)]


def _constants(schema: Node, key: str) -> list[Any]:
    return [one["properties"][key]["const"] for one in branches(schema) if "properties" in one]


def _elsewhere(name: str) -> str:
    """Where in the recipe there is a key of this name; empty when there is none."""
    found = dict.fromkeys(dotted(path[:-1]) for path, _ in walk(load()) if path[-1] == name)
    inside = [section for section in found if section]
    top = ["at the top level"] if "" in found else []
    return " or ".join([*top, *([f"in {', '.join(inside)}"] if inside else [])])


def _flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(item) for item in value)}]"
    return value if isinstance(value, str) and plain(value) == value and ": " not in value else shown(value)


def _size(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
