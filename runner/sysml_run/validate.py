"""Document x schema -> every problem, at its real key, in file order.

A `oneOf` is followed by its discriminator, so an error stands where it was made. The dozen keywords of our schemas are
checked here: importing jsonschema costs more than all the rest; the tests hold the two to the same verdict.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from . import wording
from .document import Document
from .errors import Problem
from .position import Pointer
from .schema import Node, branch, branches, child, discriminator, load, types

NUMBER = (int, float)
# A keyword says nothing of values of other kinds: `minimum` lets null through.
KEYWORDS: Mapping[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "const": (object, operator.eq),
    "enum": (object, lambda value, names: value in names),
    "minimum": (NUMBER, operator.ge),
    "exclusiveMinimum": (NUMBER, operator.gt),
    "maximum": (NUMBER, operator.le),
    "exclusiveMaximum": (NUMBER, operator.lt),
    "minLength": (str, lambda value, limit: len(value) >= limit),
    "maxLength": (str, lambda value, limit: len(value) <= limit),
    "pattern": (str, lambda value, pattern: re.search(pattern, value) is not None),
    "minItems": (list, lambda value, limit: len(value) >= limit),
    "maxItems": (list, lambda value, limit: len(value) <= limit),
}


def check(document: Document) -> list[Problem]:
    """Every way in which the document breaks the schema; none means that it can be resolved."""
    checker = _Checker(document)
    checker.node(load(), document.value, ())
    return sorted(checker.problems, key=lambda problem: (problem.line is None, problem.line, problem.column))


class _Checker:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def node(self, schema: Node, value: Any, pointer: Pointer) -> None:
        chosen = branch(schema, value)
        key = discriminator(schema)
        if chosen is None and key is not None and isinstance(value, dict):
            self.undecided(schema, key, value, pointer)
        elif chosen is None:
            self.wrong(pointer, *wording.unexpected(schema, value))
        elif isinstance(value, dict | list) and not types(chosen):
            return  # a place where any value may stand
        elif isinstance(value, dict):
            self.section(schema, chosen, value, pointer)
        elif isinstance(value, list):
            self.items(schema, chosen, value, pointer)
        elif _finite(value):
            self.single(schema, chosen, value, pointer)
        else:
            self.wrong(pointer, f"expected a finite number, got {wording.shown(value)}", None)

    def single(self, schema: Node, chosen: Node, value: Any, pointer: Pointer) -> None:
        """The first keyword that refuses the value."""
        for keyword, (kind, holds) in KEYWORDS.items():
            if keyword in chosen and isinstance(value, kind) and not holds(value, chosen[keyword]):
                self.wrong(pointer, *wording.refused(keyword, schema, chosen, value))
                return

    def items(self, schema: Node, chosen: Node, value: list[Any], pointer: Pointer) -> None:
        self.single(schema, chosen, value, pointer)
        for at, item in enumerate(value):
            self.node(chosen["items"], item, (*pointer, at))

    def section(self, schema: Node, chosen: Node, value: Mapping[str, Any], pointer: Pointer) -> None:
        meant = set()
        for name, item in value.items():
            below = child(chosen, name)
            if below is None:
                meant.add(self.unknown(schema, chosen, name, pointer))
            else:
                self.node(below, item, (*pointer, name))
        for name in chosen.get("required", ()):
            if name not in value and name not in meant:
                self.missing(chosen["properties"][name], (*pointer, name))

    def undecided(self, schema: Node, key: str, value: Mapping[str, Any], pointer: Pointer) -> None:
        """No branch of a `oneOf` has this discriminator: say so, and check what needs no branch."""
        known = {name: below for one in branches(schema) for name, below in one.get("properties", {}).items()}
        choice = {"enum": [one["properties"][key]["const"] for one in branches(schema) if "properties" in one]}
        meant = {self.unknown(schema, {"properties": known}, name, pointer) for name in value if name not in known}
        if key in value:
            self.wrong((*pointer, key), *wording.unexpected(choice, value[key]))
        elif key not in meant:
            self.missing(choice, (*pointer, key))

    def unknown(self, schema: Node, chosen: Node, name: str, pointer: Pointer) -> str | None:
        """Note a key that has no place here; returns the key of this section that was probably meant."""
        message, hint, meant = wording.unknown(schema, chosen, name, pointer)
        below = (*pointer, name)
        self.problems.append(self.document.key(below).problem(below, message, hint))
        return meant

    def missing(self, schema: Node, pointer: Pointer) -> None:
        place = self.document.key(pointer[:-1])
        self.problems.append(place.problem(pointer, "is missing", wording.example(schema, str(pointer[-1]))))

    def wrong(self, pointer: Pointer, message: str, hint: str | None) -> None:
        self.problems.append(self.document.place(pointer).problem(pointer, message, hint))


def _finite(value: Any) -> bool:
    """False for what a float cannot hold: infinities, not-a-number, and whole numbers past 1.8e308."""
    try:
        return not isinstance(value, NUMBER) or math.isfinite(value)
    except OverflowError:
        return False
