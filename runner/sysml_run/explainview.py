"""What a key means, as text: its description, type, limits, default, examples, branches and names elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap

from .explain import Parts, Place, find, other_names, places
from .schema import Node, branches, discriminator
from .wording import KINDS, expected, flow

WIDTH = 100
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "in the form {}",
}
COUNTED = ("minItems", "maxItems", "minLength", "maxLength")
CLAUSE_END = re.compile(r"[.:;] ")
SECTIONS = "A recipe has these keys and sections"
MORE = "sysml-run explain SECTION lists its keys; sysml-run explain SECTION.KEY says all of one key.\n"

Row = tuple[str, str, str]


def text(key: str | None) -> str:
    """What is said of a key, or of every section without one. Raises UsageError for a key that is not there."""
    every = places()
    if key is None:
        return f"{SECTIONS}:\n{_lines([_row(parts, every[parts]) for parts in every if len(parts) == 1])}\n{MORE}"
    found = find(key, every)
    if len(found) > 1:
        rows = [_row((".".join(parts),), every[parts]) for parts in found]
        return f"{key} can be one of these; write one of them in full:\n{_lines(rows)}"
    return _key(found[0], every)


def _key(parts: Parts, every: Mapping[Parts, Sequence[Place]]) -> str:
    """All that is known of one key, and one line for each key below it."""
    found = every[parts]
    said = "".join(f"  {line}\n" for line in _meaning(found))
    below = [_row(each, every[each]) for each in every if each[:-1] == parts]
    others = [".".join(each) for each in every if each[-1:] == parts and each != parts]
    return "\n".join(
        part
        for part in (
            f"{'.'.join(parts)}\n",
            said,
            _lines(_facts(found)),
            _choices(found[0].node),
            f"  keys of this section\n{_lines(below, 4)}" if below else "",
            f"  see also {', '.join(others)}\n" if others else "",
        )
        if part
    )


def _meaning(found: Sequence[Place]) -> list[str]:
    """The description, once for each branch where it differs."""
    meanings = _by_branch(found, lambda node: str(node["description"]))
    return [line for words, branch in meanings for line in wrap(f"{branch}: {words}" if branch else words, WIDTH)]


def _facts(found: Sequence[Place]) -> list[Row]:
    """One line a fact; where it differs by branch, one line for each value."""
    name = found[0].parts[-1]
    rows: list[Row] = [("type", *fact) for fact in _types(found)]
    rows += [("limits", *fact) for fact in _by_branch(found, _limits) if fact[0]]
    rows += [("default", *fact) for fact in _by_branch(found, _default)]
    examples = dict.fromkeys(flow(value) for place in found for value in place.node["examples"])
    rows += [("example", f"{name}: {example}", "") for example in examples]
    if _partial(found):
        rows.append(("only with", _with(found), ""))
    return rows + [("also called", words, "") for words in _elsewhere(found)]


def _types(found: Sequence[Place]) -> list[tuple[str, str]]:
    """The key that tells the branches apart takes the constant of any of them."""
    constants = [str(place.node["const"]) for place in found if "const" in place.node and place.branch]
    return [(_either(constants), "")] if constants else _by_branch(found, _type)


def _type(node: Node) -> str:
    """The allowed values where there is a list of them, else the kinds; of a list also what its items are."""
    words = KINDS["object"] if "additionalProperties" in node and "properties" not in node else expected(node)
    inside = next((one["items"] for one in branches(node) if "items" in one), None)
    return words if inside is None else f"{words}; an item is {expected(inside)}"


def _limits(node: Node) -> str:
    items = "".join(_limited(one["items"]) for one in branches(node) if "items" in one)
    own = ", ".join(limits for one in branches(node) if (limits := _limited(one)))
    return "; ".join([*([own] if own else []), *([f"an item {items}"] if items else [])])


def _limited(node: Node) -> str:
    least = node.get("minItems")
    if least is not None and least == node.get("maxItems"):
        return f"{least} items"
    return ", ".join(_limit(word, node[word]) for word in LIMITS if word in node)


def _limit(word: str, value: object) -> str:
    words = LIMITS[word].format(str(value).removesuffix(r"(?!\n)") if word == "pattern" else value)
    return words.removesuffix("s") if value == 1 and word in COUNTED else words


def _default(node: Node) -> str:
    return flow(node["default"]) if "default" in node else "none: it must be written"


def _elsewhere(found: Sequence[Place]) -> list[str]:
    """`lora_r in axolotl`, one line a trainer."""
    tools: dict[str, list[str]] = {}
    for name, tool in other_names(found):
        tools.setdefault(tool, []).append(name)
    return [", ".join(names) + ("" if tool == "habit" else f" in {tool}") for tool, names in tools.items()]


def _choices(node: Node) -> str:
    """What each branch of a section, or of the items of a list, is for."""
    chosen = node.get("items", node)
    key = discriminator(chosen)
    if key is None:
        return ""
    inside = [one for one in branches(chosen) if "properties" in one]
    return (
        f"  {key} is one of\n{_lines([(one['properties'][key]['const'], '', one['description']) for one in inside], 4)}"
    )


def _by_branch(found: Sequence[Place], fact: Callable[[Node], str]) -> list[tuple[str, str]]:
    """The fact and, where it is not the same in every branch, `with name: adamw or lion`."""
    groups: dict[str, list[Place]] = {}
    for place in found:
        groups.setdefault(fact(place.node), []).append(place)
    return [(words, f"with {_with(places)}" if len(groups) > 1 else "") for words, places in groups.items()]


def _with(found: Sequence[Place]) -> str:
    told = [place.branch for place in found if place.branch]
    return f"{told[0][0]}: {_either([value for _, value in told])}"


def _either(words: Sequence[str]) -> str:
    each = list(dict.fromkeys(words))
    return " or ".join([", ".join(each[:-1]), each[-1]]) if len(each) > 1 else each[0]


def _partial(found: Sequence[Place]) -> bool:
    """Whether some branches of the section do not have the key."""
    return found[0].branch is not None and len({place.branch for place in found}) < found[0].of


def _row(parts: Parts, found: Sequence[Place]) -> Row:
    """Name, default, and the first clause of what it means."""
    defaults = dict.fromkeys(flow(place.node["default"]) if "default" in place.node else "required" for place in found)
    clause = CLAUSE_END.split(found[0].node["description"])[0].removesuffix(".")
    only = f" Only with {_with(found)}." if _partial(found) else ""
    return parts[-1], " or ".join(defaults), f"{clause}.{only}"


def _lines(rows: Sequence[Row], indent: int = 2) -> str:
    """Aligned columns; a second column that is empty in every row takes no room."""
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) if row[2] else 0 for row in rows)
    gap = "  " if second else ""
    return "".join(f"{' ' * indent}{a:{first}}  {b:{second}}{gap}{c}".rstrip() + "\n" for a, b, c in rows)
