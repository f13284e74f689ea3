"""The recipe as YAML, in the schema's order, with the origin of each value behind it."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from sysml_run.position import Pointer
from sysml_run.schema import Node, branches, child, load
from sysml_run.yaml12 import plain

from .ledger import Entry

WIDTH = 120
COLUMN = 44  # where comments start, if the value leaves room
BARE = re.compile(r"[A-Za-z0-9_./~](?:[A-Za-z0-9 _./+=@~-]|:(?=[^ ]))*(?<! )")
BROKEN = re.compile("[^\n -~\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029]")
AFTER = ("tracking",)  # the one key of the top level that stands behind sections
Tree = dict[Any, Any]  # sections and items, with an Entry at each leaf
Line = tuple[str, str]  # a line and the comment behind it


def recipe(entries: Mapping[Pointer, Entry], sections: Mapping[Pointer, str]) -> str:
    """YAML text, a blank line between sections; `sections` has the comments behind the names of sections."""
    tree: Tree = {}
    for place, entry in entries.items():
        below = tree
        for part in place[:-1]:
            below = below.setdefault(part, {})
        below[place[-1]] = entry
    lines = [line for pair in _block(tree, (load(),), (), sections) for line in _beside(*pair)]
    return "\n".join(lines) + "\n"


def comment(text: str, indent: str = "") -> list[str]:
    """Comment lines; what follows the first is indented further."""
    words = BROKEN.sub("?", " ".join(text.split()))
    return textwrap.wrap(words, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#     ")


def scalar(value: Any) -> str:
    """A value on one line, the same inside brackets as outside."""
    if isinstance(value, list):
        return f"[{', '.join(scalar(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(name)}: {scalar(item)}" for name, item in value.items()) + "}"
    if isinstance(value, str):
        bare = plain(value) == value and BARE.fullmatch(value) is not None
        return value if bare else _quoted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def _block(tree: Tree, nodes: tuple[Node, ...], at: Pointer, sections: Mapping[Pointer, str]) -> Iterator[Line]:
    """The keys of one section, or the items of one list, not indented."""
    order = [name for node in nodes for name in node.get("properties", ())]
    for name in sorted(tree, key=lambda name: order.index(name) if name in order else len(order)):
        below, place = tree[name], (*at, name)
        under = tuple(one for node in nodes for found in (child(node, name),) if found for one in branches(found))
        if isinstance(below, Entry):
            yield from [("", "")] if not at and name in AFTER else []
            yield from _leaf(name, below)
        elif isinstance(name, int):
            yield from _indented(_block(below, under, place, sections), "- ")
        else:
            yield from [("", "")] if not at else []
            yield f"{name}:", sections.get(place, "")
            yield from _indented(_block(below, under, place, sections), "  ")


def _indented(lines: Iterator[Line], first: str) -> Iterator[Line]:
    for at, (text, words) in enumerate(lines):
        yield (f"{'  ' if at else first}{text}" if text else ""), words


def _leaf(name: str, entry: Entry) -> Iterator[Line]:
    """One line, or a block of text that needs no quoting."""
    value = entry.value
    if not isinstance(value, str) or value.count("\n") < 2 or value.startswith((" ", "\n")) or BROKEN.search(value):
        yield f"{name}: {scalar(value)}", entry.origin
        return
    body = value.rstrip("\n")
    ends = len(value) - len(body)
    yield f"{name}: |{'-' if not ends else '+' if ends > 1 else ''}", entry.origin
    for line in [*body.split("\n"), *[""] * max(0, ends - 1)]:
        yield (f"  {line}" if line else ""), ""


def _beside(text: str, words: str) -> list[str]:
    """The comment behind the line, or above it where there is no room."""
    beside = f"{text:<{COLUMN}}{'' if len(text) < COLUMN else ' '}# {words}"
    if not words:
        return [text]
    if len(beside) <= WIDTH and BROKEN.search(words) is None and "\n" not in words:
        return [beside]
    return [*comment(words, re.sub(r"[^ ].*", "", text.replace("- ", "  "))), text]


def _quoted(text: str) -> str:
    """A double-quoted scalar; characters that YAML does not take as they are become escapes."""
    return BROKEN.sub(lambda found: f"\\U{ord(found.group()):08x}", json.dumps(text, ensure_ascii=False))
