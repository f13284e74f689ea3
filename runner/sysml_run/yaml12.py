"""YAML 1.2 core, strict and bounded: text -> plain values and the position of every key and value.

No tags, no merge keys, one document; aliases are written out within the bounds. A repeated key is an error.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from .errors import Problem, RecipeError
from .position import Pointer, Position
from .yamlslips import slip

MAX_DEPTH = 50
MAX_NODES = 50_000  # keys, values and items, aliases written out
MAX_TEXT = 4_000_000  # characters, aliases written out

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
NOT_YAML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
WORDS: dict[str, bool | None] = {"null": None, "Null": None, "NULL": None, "~": None, "": None}
WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
DECIMAL = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
GLUED = re.compile(r"-[A-Za-z_]")  # a dash that is meant to start an item
ESCAPE = re.compile(r"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})|.)")
LONGEST_INTEGER = 400  # digits; no float holds more, and Python refuses to read far longer ones


def plain(text: str) -> Any:
    """What an unquoted scalar means in the YAML 1.2 core schema: 2e-4, 0o17 and .inf are numbers, `yes` is text."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if DECIMAL.fullmatch(text) and len(text) <= LONGEST_INTEGER:
        return int(text)
    if BASED.fullmatch(text):
        return int(text, 0)
    if FLOAT.fullmatch(text):
        return float(text)
    return float(text.lower().replace(".", "")) if SPECIAL.fullmatch(text) else text


def place(source: str, text: str, offset: int) -> Position:
    """The position of the character at `offset`."""
    before = LINE_BREAK.split(text[:offset])
    return Position(source, len(before), len(before[-1]) + 1, LINE_BREAK.split(text)[len(before) - 1])


def read(text: str, source: str) -> tuple[Any, dict[Pointer, Position], dict[Pointer, Position]]:
    """The value, the positions of its keys and the positions of its values. Raises RecipeError with every problem."""
    if found := NOT_YAML.search(text):
        message = f"a character that YAML does not allow: U+{ord(found.group()):04X}"
        raise RecipeError([place(source, text, found.start()).problem((), message)])
    reader = _Reader(source, text)
    value = reader.root()
    if reader.problems:
        first = {(problem.line or 0, problem.column or 0): problem for problem in reversed(reader.problems)}
        raise RecipeError([problem for _, problem in sorted(first.items())])
    return value, reader.keys, reader.values


def joined(text: str) -> tuple[str, dict[int, list[int]]]:
    """JSON writes characters past U+FFFF as two escapes, YAML as one: the text with these, and where they stand.

    The columns of each line count from 0, in the new text, in which each takes two characters less.
    """
    places: dict[int, list[int]] = {}
    if not text.lstrip().startswith("{") or "\\ud" not in text.lower() or not _json(text):
        return text, places
    lines = text.split("\n")
    for number, line in enumerate(lines):
        lines[number] = ESCAPE.sub(_one, line)
        found = [match.start() - 2 * before for before, match in enumerate(filter(_pair, ESCAPE.finditer(line)))]
        places |= {number: found} if found else {}
    return "\n".join(lines), places


def _pair(escape: re.Match[str]) -> bool:
    return escape["high"] is not None


def _one(escape: re.Match[str]) -> str:
    if not _pair(escape):
        return escape[0]
    return f"\\U{0x10000 + ((int(escape['high'], 16) - 0xD800) << 10) + int(escape['low'], 16) - 0xDC00:08x}"


def _json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class _StopError(Exception):
    """Reading ends here; the problem is noted."""


class _Reader:
    """One pass over the parser's events, which are made one at a time: nothing is built before it is counted."""

    def __init__(self, source: str, text: str) -> None:
        self.source = source
        self.text, self.joined = joined(text)
        self.lines = LINE_BREAK.split(text)
        self.keys: dict[Pointer, Position] = {}
        self.values: dict[Pointer, Position] = {}
        self.problems: list[Problem] = []
        self.events: list[Any] = []
        self.anchors: dict[str, int] = {}
        self.nodes = self.characters = 0
        self.alias: Any = None  # the outermost alias being written out

    def root(self) -> Any:
        try:
            self.events = list(self.bounded())
            if not self.events:
                self.problems.append(Position(self.source, 1, 1, self.lines[0]).problem((), "the file is empty"))
                return None
            return self.node(0, ())[0]
        except yaml.MarkedYAMLError as error:
            self.syntax(error)
        except _StopError:
            pass
        return None

    def bounded(self) -> Iterator[Any]:
        """The events of the one document, without its frame, as long as they are within the bounds."""
        depth = documents = 0
        for event in yaml.parse(self.text, Loader=LOADER):
            documents += isinstance(event, yaml.DocumentStartEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if documents > 1:
                self.stop(event, (), "a second document starts here", "a recipe is one document; remove the ---")
            if depth > MAX_DEPTH:
                self.stop(event, (), f"nested deeper than {MAX_DEPTH} levels")
            if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                self.count(event, ())
                yield event
        self.nodes = self.characters = 0

    def count(self, event: Any, pointer: Pointer) -> None:
        self.nodes += 1
        self.characters += len(event.value) if isinstance(event, yaml.ScalarEvent) else 0
        if self.nodes > MAX_NODES or self.characters > MAX_TEXT:
            self.stop(event, pointer, "too much for a recipe, aliases written out", "keep data in a dataset file")
        if len(pointer) > MAX_DEPTH:
            self.stop(event, pointer, f"nested deeper than {MAX_DEPTH} levels, aliases written out")

    def node(self, at: int, pointer: Pointer) -> tuple[Any, int]:
        """The value whose events start at `at`, and where the next one starts."""
        event = self.events[at]
        self.count(event, pointer)
        if isinstance(event, yaml.AliasEvent):
            return self.written_out(event, pointer), at + 1
        self.values[pointer] = self.position(event)
        self.untagged(event, pointer)
        value, after = self.content(event, at, pointer)
        if event.anchor:
            self.anchors[event.anchor] = at
        return value, after

    def content(self, event: Any, at: int, pointer: Pointer) -> tuple[Any, int]:
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(at + 1, pointer)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(at + 1, pointer)
        if "\0" in event.value:
            self.problems.append(self.position(event).problem(pointer, "text cannot hold U+0000"))
        return plain(event.value) if event.implicit[0] else event.value, at + 1

    def sequence(self, at: int, pointer: Pointer) -> tuple[list[Any], int]:
        items: list[Any] = []
        while not isinstance(self.events[at], yaml.SequenceEndEvent):
            item, at = self.node(at, (*pointer, len(items)))
            items.append(item)
        return items, at + 1

    def mapping(self, at: int, pointer: Pointer) -> tuple[dict[str, Any], int]:
        result: dict[str, Any] = {}
        while not isinstance(self.events[at], yaml.MappingEndEvent):
            name = self.key(self.events[at], pointer, result)
            _, at = self.node(at, (*pointer, name))
            value, at = self.node(at, (*pointer, name))
            result.setdefault(name, value)
        return result, at + 1

    def key(self, event: Any, pointer: Pointer, siblings: dict[str, Any]) -> str:
        """The text of a key; notes what is wrong with it and where it stands."""
        name = event.value if isinstance(event, yaml.ScalarEvent) else "?"
        here = self.position(event)
        below = (*pointer, name)
        if not isinstance(event, yaml.ScalarEvent):
            template = "{{" in (here.excerpt or "")
            hint = 'put a template in quotes: "{{ ... }}"' if template else None
            self.problems.append(here.problem(pointer, "a key must be text", hint))
        elif event.implicit[0] and name == "<<":
            self.problems.append(here.problem(pointer, "merge keys (<<) are not YAML 1.2", "write the keys out"))
        elif event.implicit[0] and not isinstance(plain(name), str):
            self.problems.append(here.problem(pointer, f"a key must be text, got {name or 'nothing'}", "quote it"))
        elif event.implicit[0] and GLUED.match(name):
            self.problems.append(here.problem(pointer, "no item starts here", "a dash wants a blank after it"))
        elif name in siblings:
            first = self.keys[below].line
            self.problems.append(here.problem(below, f"written twice; the first is on line {first}", "keep one"))
        self.keys.setdefault(below, here)
        return name

    def written_out(self, event: Any, pointer: Pointer) -> Any:
        """The value an alias stands for; what is below it keeps the places of the original."""
        start, outer = self.anchored(event, pointer), self.alias
        self.alias = outer or event
        value, _ = self.node(start, pointer)
        self.alias = outer
        self.values[pointer] = self.position(event)
        return value

    def anchored(self, event: Any, pointer: Pointer) -> int:
        if event.anchor not in self.anchors:
            self.stop(event, pointer, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        return self.anchors[event.anchor]

    def untagged(self, event: Any, pointer: Pointer) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"tags are not allowed in a recipe: {tag}"
            self.problems.append(self.position(event).problem(pointer, message, "remove the tag"))

    def position(self, event: Any) -> Position:
        mark = event.start_mark
        return Position(self.source, mark.line + 1, self.column(mark.line, mark.column), self.line(mark.line))

    def column(self, line: int, column: int) -> int:
        """From 1, in the text as it was given."""
        return column + 1 + 2 * bisect_left(self.joined.get(line, ()), column)

    def line(self, index: int) -> str:
        return self.lines[index] if index < len(self.lines) else ""

    def stop(self, event: Any, pointer: Pointer, message: str, hint: str | None = None) -> NoReturn:
        self.problems.append(self.position(self.alias or event).problem(pointer, message, hint))
        raise _StopError

    def syntax(self, error: yaml.MarkedYAMLError) -> None:
        """Note what the parser refused, where, and the usual cause."""
        found = slip(self.lines, error.problem or "", error.context, error.problem_mark, error.context_mark)
        if found is None:
            self.problems.append(Problem(self.source, "", None, None, f"not YAML: {error}"))
            return
        column = self.column(found.line, found.column)
        here = Position(self.source, found.line + 1, column, self.line(found.line))
        self.problems.append(here.problem((), found.message, found.hint))
