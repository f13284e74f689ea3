"""Shipped recipes with one thing broken: one error, on the line where it was broken, and never a traceback."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sysml_run import document, resources, schema, validate
from sysml_run.document import Document
from sysml_run.errors import Problem, RecipeError
from sysml_run.position import Pointer

RECIPES = sorted(resources.recipes().glob("*.yaml"))
SEEDS = 500  # for each recipe and each way of breaking it
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LINE = re.compile(r"^( +)([a-z_0-9]+):( [^\n]*)?$", re.MULTILINE)
WRONG: dict[str, str] = {
    "object": "[1]",
    "array": "{a: 1}",
    "string": "[1]",
    "integer": "fast",
    "number": "fast",
    "boolean": "17",
    "null": "[1]",
}


@dataclass(frozen=True)
class Broken:
    """A recipe's text with one mistake on one of `lines`; `column` where it is known."""

    text: str
    lines: tuple[int, ...]
    column: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A shipped recipe, its positions, and the extent of each scalar in its text."""

    text: str
    read: Document
    scalars: dict[Pointer, tuple[int, int]]


def recipe(path: Path) -> Recipe:
    text = path.read_text()
    return Recipe(text, document.load(path), dict(_scalars(yaml.compose(text, yaml.SafeLoader), ())))


def _scalars(node: Any, pointer: Pointer) -> Iterator[tuple[Pointer, tuple[int, int]]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, (*pointer, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            yield from _scalars(item, (*pointer, at))
    elif node.style not in ("|", ">"):
        yield pointer, (node.start_mark.index, node.end_mark.index)


def misspelt(whole: Recipe, chance: random.Random) -> Broken | None:
    pointer = chance.choice([at for at in whole.read.keys if len(str(at[-1])) > 3])
    place = whole.read.keys[pointer]
    name = str(pointer[-1])
    at = chance.randrange(len(name))
    wrong = chance.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + chance.choice(LETTERS) + name[at:],
            name[:at] + chance.choice(LETTERS) + name[at + 1 :],
            name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
        ]
    )
    if schema.find((*pointer[:-1], wrong)):
        return None
    start = _offset(whole.text, place.line, place.column)
    text = whole.text[:start] + wrong + whole.text[start + len(name) :]
    return Broken(text, (place.line or 0,), place.column)


def wrong_type(whole: Recipe, chance: random.Random) -> Broken | None:
    pointer, (start, end) = chance.choice(list(whole.scalars.items()))
    taken = {kind for node in _nodes(whole, pointer) for one in schema.branches(node) for kind in schema.types(one)}
    fitting = [text for kind, text in WRONG.items() if kind in taken and not _takes(taken, text)]
    return _replaced(whole, pointer, start, end, chance.choice(fitting)) if fitting else None


def _takes(taken: set[str], text: str) -> bool:
    """`fast` is no wrong type where text is taken, nor a list where lists are."""
    return {"f": "string", "[": "array", "{": "object", "1": "integer"}[text[0]] in taken or (
        text == "17" and "number" in taken
    )


def out_of_range(whole: Recipe, chance: random.Random) -> Broken | None:
    pointer, (start, end) = chance.choice(list(whole.scalars.items()))
    found = [one for node in _nodes(whole, pointer) for one in schema.branches(node)]
    wrong = [
        *(str(one["minimum"] - 1) for one in found if "minimum" in one),
        *(str(one["exclusiveMinimum"]) for one in found if "exclusiveMinimum" in one),
        *(str(one["maximum"] + 1) for one in found if "maximum" in one),
        *(str(one["exclusiveMaximum"]) for one in found if "exclusiveMaximum" in one),
        *("'!!'" for one in found if "pattern" in one or "enum" in one or isinstance(one.get("const"), str)),
        *("99" for one in found if one.get("const") == 1),
        *("''" for one in found if "minLength" in one),
    ]
    return _replaced(whole, pointer, start, end, chance.choice(wrong)) if wrong else None


def _nodes(whole: Recipe, pointer: Pointer) -> list[schema.Node]:
    """What the schema says of this place in this recipe: each choice on the way is followed."""
    node, value = schema.load(), whole.read.value
    for part in pointer:
        chosen = schema.branch(node, value)
        assert chosen is not None
        below = schema.child(chosen, part)
        assert below is not None
        node, value = below, value[part]
    return [node]


def _replaced(whole: Recipe, pointer: Pointer, start: int, end: int, by: str) -> Broken:
    place = whole.read.values[pointer]
    return Broken(whole.text[:start] + by + whole.text[end:], (place.line or 0,), place.column)


def duplicate(whole: Recipe, chance: random.Random) -> Broken | None:
    found = chance.choice([one for one in LINE.finditer(whole.text) if one[3] and _single(whole.text, one)])
    line = whole.text.count("\n", 0, found.end()) + 2
    text = f"{whole.text[: found.end()]}\n{found[0]}{whole.text[found.end() :]}"
    return Broken(text, (line,), len(found[1]) + 1)


def indent(whole: Recipe, chance: random.Random) -> Broken | None:
    """A line with one key moved to the left or right; nobody can tell whether it or the next one is wrong."""
    found = chance.choice([one for one in LINE.finditer(whole.text) if _single(whole.text, one)])
    moved = chance.choice([one for one in (-2, -1, 1, 2) if len(found[1]) + one >= 0])
    text = whole.text[: found.start()] + " " * (len(found[1]) + moved) + whole.text[found.start() + len(found[1]) :]
    if _value(text) is not RecipeError and len(document.parse(text, "").keys) < len(whole.read.keys):
        return None  # it has become a line of the text above it
    line = whole.text.count("\n", 0, found.start()) + 1
    rest = whole.text.split("\n")[line:]
    content = [line + at for at, one in enumerate(rest, 1) if one.strip() and not one.lstrip().startswith("#")]
    after = content[0] if content else line
    return Broken(text, (line, after))


def _single(text: str, found: re.Match[str]) -> bool:
    """Whether the key and its value stand on this line alone."""
    rest = [line for line in text[found.end() + 1 :].split("\n") if line.strip() and not line.lstrip().startswith("#")]
    deeper = bool(rest) and len(rest[0]) - len(rest[0].lstrip()) > len(found[1])
    return not deeper and not (found[3] or "").strip().startswith((">", "|", "["))


def _offset(text: str, line: int | None, column: int | None) -> int:
    lines = text.split("\n")
    return sum(len(one) + 1 for one in lines[: (line or 1) - 1]) + (column or 1) - 1


def problems(text: str) -> list[Problem]:
    try:
        return validate.check(document.parse(text, "recipe.yaml"))
    except RecipeError as error:
        return list(error.problems)


def _value(text: str) -> Any:
    try:
        return document.parse(text, "recipe.yaml").value
    except RecipeError:
        return RecipeError


WAYS: dict[str, Callable[[Recipe, random.Random], Broken | None]] = {
    "misspelt": misspelt,
    "wrong type": wrong_type,
    "out of range": out_of_range,
    "duplicate": duplicate,
    "indent": indent,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_one_mistake_is_one_error_on_its_line(path: Path, way: str) -> None:
    whole = recipe(path)
    tried = 0
    for seed in range(SEEDS):
        broken = WAYS[way](whole, random.Random(f"{path.stem} {way} {seed}"))
        if broken is None or _value(broken.text) == whole.read.value:
            continue
        tried += 1
        found = [problem for problem in problems(broken.text) if problem.severity == "error"]
        assert len(found) == 1, (seed, _changed(whole.text, broken.text), found)
        assert found[0].line in broken.lines, (seed, _changed(whole.text, broken.text), found)
        assert broken.column in (None, found[0].column), (seed, _changed(whole.text, broken.text), found)
        assert found[0].message
    assert tried > SEEDS // 4


def _changed(before: str, after: str) -> list[str]:
    return [line for line in after.split("\n") if line not in before.split("\n")]
