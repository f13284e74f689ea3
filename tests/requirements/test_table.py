"""The table of what five pipelines ask: every point once, and every key, command and test that it names is there."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from sysml_run import options, schema

HERE = Path(__file__).parent
TESTS = HERE.parent
TABLE: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "table.yaml").read_text(encoding="utf-8"))
POINTS = {"S0": 50, "S1": 46, "S2": 32, "S3": 53, "S4": 50}
FIELDS = {"scope", "what", "keys", "commands", "tests", "built", "where", "lacks", "reason"}
KEYS = {".".join(pointer) for pointer, _ in schema.every()}


def test_every_point_is_there_once() -> None:
    """A repeated point would be lost in reading: the file is read once more line by line."""
    wanted = [f"{group}-{number:02}" for group, count in POINTS.items() for number in range(1, count + 1)]
    assert len(wanted) == 231
    lines = (HERE / "table.yaml").read_text(encoding="utf-8").splitlines()
    assert [line[:-1] for line in lines if line[:1] == "S"] == wanted == [*TABLE]


@pytest.mark.parametrize("point", TABLE)
def test_a_row_says_what_its_scope_asks(point: str) -> None:
    row = TABLE[point]
    assert set(row) <= FIELDS
    assert 4 <= len(row["what"]) <= 100
    if row["scope"] == "X":
        assert set(row) == {"scope", "what", "reason"}
        return
    covered = set(row) & {"keys", "commands", "tests"}
    assert "reason" not in row
    if row["scope"] == "C":
        assert row["tests"]
        assert "built" not in row
    else:
        assert row["scope"] == "E"
        assert row["built"] in ("yes", "partly", "no")
        assert ("lacks" in row) == (row["built"] != "yes")
        assert row["built"] == "no" or (covered and row["tests"])


def named(kind: str) -> list[tuple[str, str]]:
    return [(point, name) for point, row in TABLE.items() for name in row.get(kind, ())]


@pytest.mark.parametrize("key", sorted({key for _, key in named("keys")}))
def test_every_key_is_one_of_the_language(key: str) -> None:
    assert key in KEYS


@pytest.mark.parametrize("command", sorted({command for _, command in named("commands")}))
def test_every_command_and_its_options_are_there(command: str) -> None:
    name, *rest = command.split()
    assert name in options.COMMANDS
    known = {text for action in actions(name) for text in action.option_strings}
    assert set(rest) <= known


def actions(command: str) -> list[argparse.Action]:
    return options.parser(command)._actions


@pytest.mark.parametrize("node", sorted({node for _, node in named("tests")}))
def test_every_test_is_there(node: str) -> None:
    file, _, name = node.partition("::")
    assert name in functions(TESTS / file)


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of the tests in a file, also of those in classes."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in found if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_")


@cache
def words(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_section_of_the_language_is_asked_for_by_a_point() -> None:
    """What nobody asks for would be a part without a use."""
    asked = {key.split(".")[0] for _, key in named("keys")}
    assert set(sections()) - asked <= {"version", "name", "description"}


def sections() -> Iterator[str]:
    yield from schema.load()["properties"]
