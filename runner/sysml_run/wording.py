"""What is said of a value that breaks the schema, and the hint that goes with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .position import Pointer, dotted
from .schema import Node, branch, branches, discriminator, every, kinds, types, values
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
SLIP = 0.85  # as near as one wrong letter in seven
PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
GLUED = re.compile(r"[a-z_]+:\S")


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
    return message, f"{schema['description']} Example: {flow(schema['examples'][0])}" if keyword == "pattern" else None


def unknown(schema: Node, chosen: Node, name: str, pointer: Pointer) -> tuple[str, str | None, list[Pointer]]:
    """Message, hint and the keys that may be meant for a key that has no place here."""
    here = list(chosen["properties"])
    key = discriminator(schema)
    owners = [one for one in branches(schema) if name in one.get("properties", {})]
    if key is not None and owners:
        of = " or ".join(f"{key}: {one['properties'][key]['const']}" for one in owners)
        return f"unknown key for {key}: {chosen['properties'][key]['const']}", f"it belongs to {of}", []
    here_as = _known_as(dotted((*pointer, name)), pointer) if pointer else []
    if here_as:
        return "unknown key", f"write {' or '.join(_dotted(path) for path in here_as)}", here_as
    places = _called(name)
    if places:
        return "unknown key", f"it belongs {_where(places)}", places
    slip = closest(name, here, SLIP)
    if slip:
        return "unknown key", f"did you mean {slip}?", [(*pointer, slip)]
    ours = _known_as(name, pointer)
    if ours:
        return "unknown key", f"write {' or '.join(_dotted(path) for path in ours)}", ours
    meant = closest(name, here)
    if meant:
        return "unknown key", f"did you mean {meant}?", [(*pointer, meant)]
    far = closest(name, dict.fromkeys(path[-1] for path, _ in every()), SLIP)
    if far:
        return "unknown key", f"did you mean {far}? It belongs {_where(_called(far))}", _called(far)
    return "unknown key", f"known here: {', '.join(here)}", []


def example(schema: Node, name: str = "") -> str | None:
    """`for example name: value`."""
    values = [*schema.get("examples", ()), *schema.get("enum", ())]
    return f"for example {name + ': ' if name else ''}{flow(values[0])}" if values else None


def expected(schema: Node) -> str:
    """What `schema` takes: the allowed values where there is a list of them, else the kinds."""
    words: list[str] = []
    for one in branches(schema):
        names = one.get("enum", [one["const"]] if "const" in one else None)
        words += [flow(name) for name in names] if names is not None else [KINDS[kind] for kind in types(one)]
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def closest(word: str, known: Iterable[str], likeness: float = 0.7) -> str | None:
    """The known word nearest in spelling, if any is as near as `likeness` (0..1, difflib's ratio)."""
    from difflib import get_close_matches

    by_lower = {_plain(name): name for name in known}
    found = get_close_matches(_plain(word), by_lower, 1, likeness)
    return by_lower[found[0]] if found else None


def _mend(schema: Node, value: Any) -> str | None:
    """What to write instead of a value of the wrong kind."""
    taken = {kind for one in branches(schema) for kind in types(one)}
    if value is None:
        return "write a value after the colon, or remove the line"
    ours = values(schema).get(_text(value), schema)
    if ours is not schema:
        return f"write {flow(ours)}"
    if isinstance(value, str):
        return _mend_text(schema, taken, value)
    if "array" in taken:
        return "start each item with a dash" if isinstance(value, dict) else _listed(schema, value)
    if "string" in taken and not isinstance(value, dict | list) and not _names(schema):
        return "put it in quotes to make it text"
    return None


def _text(value: Any) -> str:
    """How a value is named in `x-values`."""
    return shown(value) if not isinstance(value, str) else _plain(value)


def _mend_text(schema: Node, taken: set[str], value: str) -> str | None:
    key, share = discriminator(schema), PERCENT.fullmatch(value)
    if "boolean" in taken and value.lower() in TRUTH:
        return f"write {TRUTH[value.lower()]}"
    if taken & set(kinds(plain(value))) and not isinstance(plain(value), str):
        return f"write {value} without quotes"
    if share and "number" in taken:
        return f"write {float(share[1]) / 100:g}"
    near = closest(value, _names(schema), 0.6)
    if near:
        return f"did you mean {near}?"
    if "array" in taken:
        return _listed(schema, value)
    if "object" in taken and GLUED.match(value):
        return "a colon wants a blank after it"
    return f"write a section with {key}: {value}" if key and value in _constants(schema, key) else None


def _listed(schema: Node, value: Any) -> str | None:
    """The value as a list of one where that would do, else a list that does."""
    lists = (one["items"] for one in branches(schema) if "items" in one and one.get("minItems", 1) <= 1)
    fits = any(_fits(items, value) for items in lists)
    return f"write a list: [{flow(value)}]" if fits else example(schema)


def _fits(node: Node, value: Any) -> bool:
    chosen = branch(node, value)
    return chosen is not None and value in chosen.get("enum", [value])


def _names(schema: Node) -> list[str]:
    return [name for one in branches(schema) for name in one.get("enum", ()) if isinstance(name, str)]


def _constants(schema: Node, key: str) -> list[Any]:
    return [one["properties"][key]["const"] for one in branches(schema) if "properties" in one]


def _called(name: str) -> list[Pointer]:
    """Every key of the recipe with this name."""
    return list(dict.fromkeys(path for path, _ in every() if path[-1] == name))


def _where(places: list[Pointer]) -> str:
    """In which sections those keys stand."""
    found = dict.fromkeys(_dotted(path[:-1]) for path in places)
    inside = [section for section in found if section]
    top = ["at the top level"] if "" in found else []
    return " or ".join([*top, *([f"in {', '.join(inside)}"] if inside else [])])


def _known_as(name: str, pointer: Pointer) -> list[Pointer]:
    """Our keys for what other trainers call `name`; those of the section `pointer` where there are some."""
    found: list[Pointer] = list(
        dict.fromkeys(path for path, node in every() if _plain(name) in map(_plain, _names_elsewhere(node)))
    )
    section = tuple("[]" if isinstance(part, int) else part for part in pointer)
    return [path for path in found if path[:-1] == section] or found


def _names_elsewhere(node: Node) -> Iterator[str]:
    return (name for names in node.get("x-known-as", {}).values() for name in names)


def _dotted(path: Pointer) -> str:
    return dotted(path).replace(".[]", "[]")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def flow(value: Any) -> str:
    """A value on one line, as YAML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(flow(item) for item in value)}]"
    return value if isinstance(value, str) and plain(value) == value and ": " not in value else shown(value)


def _size(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
