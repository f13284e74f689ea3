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
ENOUGH = 200  # after as many problems a key is no longer compared with all that there are
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
    return sorted(checker.found(), key=lambda problem: (problem.line is None, problem.line, problem.column))


class _Checker:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.absent: dict[Pointer, Problem] = {}
        self.empty: dict[Pointer, Problem] = {}
        self.meant: set[Pointer] = set()

    def found(self) -> list[Problem]:
        """One mistake, one problem: what is absent only because its key is misspelt or misplaced is left out."""
        keys = {_generic(pointer) for pointer in self.meant}
        sections = {pointer[:-1] for pointer in keys}
        absent = [problem for pointer, problem in self.absent.items() if _generic(pointer) not in keys]
        empty = [problem for pointer, problem in self.empty.items() if _generic(pointer) not in sections]
        return [*self.problems, *absent, *empty]

    def node(self, schema: Node, value: Any, pointer: Pointer) -> None:
        chosen = branch(schema, value)
        key = discriminator(schema)
        if chosen is None and key is not None and isinstance(value, dict):
            self.undecided(schema, key, value, pointer)
        elif chosen is None:
            self.unexpected(schema, value, pointer)
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
        for name, item in value.items():
            below = child(chosen, name)
            if below is None:
                self.unknown(schema, chosen, name, pointer)
            else:
                self.node(below, item, (*pointer, name))
        for name in chosen.get("required", ()):
            if name not in value:
                self.missing(chosen["properties"][name], (*pointer, name))

    def undecided(self, schema: Node, key: str, value: Mapping[str, Any], pointer: Pointer) -> None:
        """No branch of a `oneOf` has this discriminator: say so, and check what is the same in every branch."""
        sections = [one for one in branches(schema) if "properties" in one]
        known = {name: below for one in sections for name, below in one["properties"].items()}
        choice = _choice(sections, key)
        for name in value:
            if name not in known:
                self.unknown(schema, {"properties": known}, name, pointer)
            elif name != key:
                self.agreed(
                    [one["properties"][name] for one in sections if name in one["properties"]],
                    value[name],
                    (*pointer, name),
                )
        if key in value:
            self.wrong((*pointer, key), *wording.unexpected(choice, value[key]))
        else:
            self.missing(choice, (*pointer, key))
        for name in known:
            if name not in value and name != key and all(name in one.get("required", ()) for one in sections):
                self.missing(known[name], (*pointer, name))

    def agreed(self, nodes: list[Node], value: Any, pointer: Pointer) -> None:
        """The problems of a value that are the same in every branch."""
        found = []
        for node in nodes:
            checker = _Checker(self.document)
            checker.node(node, value, pointer)
            found.append(checker)
        said = [[(problem.pointer, problem.message) for problem in one.found()] for one in found]
        if all(one == said[0] for one in said):
            self.problems += found[0].found()

    def unexpected(self, schema: Node, value: Any, pointer: Pointer) -> None:
        problem = self.document.place(pointer).problem(pointer, *wording.unexpected(schema, value))
        if value is None:
            self.empty[pointer] = problem
        else:
            self.problems.append(problem)

    def unknown(self, schema: Node, chosen: Node, name: str, pointer: Pointer) -> None:
        """Note a key that has no place here, and the keys that were probably meant."""
        if len(self.problems) < ENOUGH:
            message, hint, meant = wording.unknown(schema, chosen, name, pointer)
        else:
            message, hint, meant = "unknown key", None, []
        below = (*pointer, name)
        self.problems.append(self.document.key(below).problem(below, message, hint))
        self.meant.update(meant)

    def missing(self, schema: Node, pointer: Pointer) -> None:
        place = self.document.key(pointer[:-1])
        self.absent[pointer] = place.problem(pointer, "is missing", wording.example(schema, str(pointer[-1])))

    def wrong(self, pointer: Pointer, message: str, hint: str | None) -> None:
        self.problems.append(self.document.place(pointer).problem(pointer, message, hint))


def _choice(sections: list[Node], key: str) -> Node:
    """The discriminator of every branch as one node."""
    named = [one["properties"][key] for one in sections]
    known = {theirs: ours for node in named for theirs, ours in node.get("x-values", {}).items()}
    return {"enum": [node["const"] for node in named], "x-values": known}


def _generic(pointer: Pointer) -> Pointer:
    """The pointer with every item of a list written `[]`, as `schema.walk` does."""
    return tuple("[]" if isinstance(part, int) else part for part in pointer)


def _finite(value: Any) -> bool:
    """False for what a float cannot hold: infinities, not-a-number, and whole numbers past 1.8e308."""
    try:
        return not isinstance(value, NUMBER) or math.isfinite(value)
    except OverflowError:
        return False
