"""YAML 1.2 core, positions, and files that must be refused quickly and plainly."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run import document, yaml12
from sysml_run.document import Document, Position, dotted, pointer
from sysml_run.errors import Problem, RecipeError


def refused(text: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        document.parse(text, "r.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1e5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1", 1),
        ("-1.5E+3", -1500.0),
        ("0o17", 15),
        ("0x1F", 31),
        ("012", 12),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("0b11", "0b11"),
        ("-0x1F", "-0x1F"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        (".", "."),
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = document.parse(f"a: {text}", "r.yaml").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(document.parse("a: .nan", "r.yaml").value["a"])


def test_a_whole_number_of_any_length_is_read() -> None:
    assert document.parse(f"a: {'9' * 100_000}", "r.yaml").value["a"] == math.inf


def test_positions() -> None:
    text = "# top\na: 1\nb:\n  - x: é, y\n    z: [p, 'q']\n  - null\nc:\n"
    read = document.parse(text, "r.yaml")
    assert read.value == {"a": 1, "b": [{"x": "é, y", "z": ["p", "q"]}, None], "c": None}
    assert read.values[()] == Position("r.yaml", 2, 1, "a: 1")
    assert read.keys[("b", 0, "z")] == Position("r.yaml", 5, 5, "    z: [p, 'q']")
    assert read.values[("b", 0, "z", 1)] == Position("r.yaml", 5, 12, "    z: [p, 'q']")
    assert read.values[("b", 1)].label() == "r.yaml:6"
    assert ("b", 1) not in read.keys
    assert (read.values[("c",)].line, read.values[("c",)].column) == (7, 3)


def test_where_to_point() -> None:
    read = document.parse("a:\n  b: 1\n", "r.yaml")
    assert read.place(("a",)) == read.keys[("a",)]
    assert read.place(("a", "b")) == read.values[("a", "b")]
    assert read.key(("a", "b")) == read.keys[("a", "b")]
    assert read.place(("a", "c", "d")) == read.keys[("a",)]
    assert read.key(("x",)) == read.values[()]


def test_an_alias_stands_where_it_is_written_and_its_keys_where_they_are() -> None:
    read = document.parse("a: &x {p: 1}\nb: *x\n", "r.yaml")
    assert read.value == {"a": {"p": 1}, "b": {"p": 1}}
    assert read.values[("b",)].line == 2
    assert read.values[("b", "p")].line == 1


def test_every_repeated_key_is_named_with_both_lines() -> None:
    found = refused("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert [(one.line, one.column, one.pointer) for one in found] == [(2, 11, "b.c"), (3, 1, "a")]
    assert found[1].message == "written twice; the first is on line 1"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "flow lists": "[" * 50_000,
    "flow lists, a line each": "[\n" * 50_000,
    "flow sections": "{a: " * 50_000,
    "block lists": "- " * 50_000,
    "block keys": "? " * 50_000,
    "aliases": BOMB,
    "merge keys": MERGE_BOMB,
    "deep by alias": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)),
    "long by alias": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]\n",
    "many items": f"[{'a,' * 400_000}]",
    "many keys": "\n".join(f"k{n}: v" for n in range(60_000)),
    "an alias of itself": "a: &a [*a]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_within_a_second(name: str) -> None:
    start = time.process_time()
    found = refused(HOSTILE[name])
    assert time.process_time() - start < 1
    assert found[0].message


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("many")])
def test_the_python_parser_is_bounded_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml12, "LOADER", yaml.SafeLoader)
    test_hostile_text_is_refused_within_a_second(name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("a: 1\n" * 300_000)
    wanted = {"absent.yaml": "cannot be read: No such file or directory", "": "is a folder, not a recipe"}
    wanted["long.yaml"] = "larger than 1000000 bytes; a recipe holds no data"
    for name, message in wanted.items():
        with pytest.raises(RecipeError) as caught:
            document.load(tmp_path / name)
        (problem,) = caught.value.problems
        assert (problem.line, problem.message) == (None, message)
        assert str(tmp_path) in str(caught.value)


def test_bytes(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\nb: 2\r\n")
    read = document.load(file)
    assert read.value == {"a": "é", "b": 2}
    assert read.values[()].column == 1
    with pytest.raises(RecipeError, match="r:2:5: not UTF-8 text: byte 0xff"):
        document.decode(b"a: 1\nb: \xc3\xa9\xff", "r")


def test_several_problems_are_one_error() -> None:
    with pytest.raises(RecipeError, match=r"r.yaml:1:4: tags are not allowed in a recipe: !x \(and 1 more\)"):
        document.parse("a: !x 1\nb: !y 2\n", "r.yaml")


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("%YAML 2.0\n---\na: 1", 1, 1, "not YAML: found incompatible YAML document"),
        ('a: "\\ud800"', 1, 7, "not YAML: found invalid Unicode character escape code"),
        ('a: "\\0"', 1, 4, "text cannot hold U+0000"),
        ("a: \ufeffb", 1, 4, "a character that YAML does not allow: U+FEFF"),
        ("a: @b", 1, 4, "not YAML: found character that cannot start any token"),
        ("a: {% if x %}", 1, 5, "not YAML: found character that cannot start any token"),
        ("a: 1\n...\nb: 2", 3, 1, "not YAML: did not find expected <document start>"),
    ],
)
def test_what_yaml_refuses(text: str, line: int, column: int, words: str) -> None:
    (problem,) = refused(text)
    assert (problem.line, problem.column, problem.message) == (line, column, words)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a:\n  b: c: d\n", 2, 7, "not YAML: mapping values are not allowed in this context"),
        ("a: b\n  c: d\n", 2, 3, "indented by 2, more than line 1 (0), which has its value already"),
        ("# x\na:b\nc: d\n", 2, 2, "a is no key"),
        ("a: 1\nb:\n  - c:d\n    e: 1\n", 3, 6, "c is no key"),
        ("a: 1\n<<<<<<< x\nb: 2\n=======\n>>>>>>> y\n", 2, 1, "a merge conflict is left here"),
        ("a:\n  -b: 1\n    c: 2\n", 2, 3, "no item starts here"),
        ("a: 1\n b c: 2\n", 2, 5, "not YAML: mapping values are not allowed in this context"),
        ("a:\n  -b: 1\n", 2, 3, "no item starts here"),
        ("a:\n  - '-b': 1\n    -1: 2\n", 3, 5, "a key must be text, got -1"),
    ],
)
def test_the_usual_slips(text: str, line: int, column: int, words: str) -> None:
    (problem,) = refused(text)
    assert (problem.line, problem.column, problem.message) == (line, column, words)
    assert problem.hint


def test_pairs_of_escapes_are_joined_in_json_alone() -> None:
    read = document.parse(r'{"a": "\ud83d\ude00 \\ud83d", "b": "\uD83D\uDE80", "c": 1}', "r.json")
    assert read.value == {"a": "\U0001f600 \\ud83d", "b": "\U0001f680", "c": 1}
    assert [read.keys[name,].column for name in "abc"] == [2, 31, 52]
    (problem,) = refused(r'{"a": "\ud83d\ude00", "b": "\ud83d"}')
    assert problem.message == "not YAML: found invalid Unicode character escape code"
    assert document.parse("{a: '\\ud83d\\ude00'}", "r.yaml").value == {"a": "\\ud83d\\ude00"}


def test_a_parser_error_without_a_place_is_still_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: object, **__: object) -> object:
        raise yaml.MarkedYAMLError(problem="lost")

    monkeypatch.setattr(yaml, "parse", parse)
    (problem,) = refused("a: 1")
    assert (problem.line, problem.message) == (None, "not YAML: lost")


def test_pointers() -> None:
    assert dotted(()) == ""
    assert pointer("") == ()
    assert pointer("datasets.0.path") == ("datasets", 0, "path")
    assert dotted(("search", "space", "optimizer.learning_rate", 0)) == 'search.space."optimizer.learning_rate".0'


@pytest.mark.parametrize("text", [".", "a.", ".a", "a..b", 'a"b', '"a', '"a"b'])
def test_not_pointers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        pointer(text)


@given(st.lists(st.one_of(st.text(min_size=0), st.integers(0, 10**8))).map(tuple))
def test_pointer_round_trip(parts: tuple[str | int, ...]) -> None:
    assert pointer(dotted(parts)) == parts


# What YAML does not take from JSON: U+0000 (our rule), keys past 1024 characters.
TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), max_size=80)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
TREES = st.recursive(SCALARS, lambda below: st.lists(below) | st.dictionaries(TEXT, below), max_leaves=20)


@settings(deadline=None)
@given(st.dictionaries(TEXT, TREES, min_size=1))
def test_json_round_trip_with_positions(tree: dict[str, object]) -> None:
    text = json.dumps(tree, indent=1)
    read = document.parse(text, "r.json")
    assert read.value == tree
    _agrees(read, tree, ())


def _agrees(read: Document, value: object, at: tuple[str | int, ...]) -> None:
    """Every position names the line and column at which the value's own text starts."""
    place = read.values[at]
    assert place.line is not None
    assert place.column is not None
    line = read.text.split("\n")[place.line - 1]
    assert place.excerpt == line
    start = json.dumps(value, indent=1)[0] if isinstance(value, dict | list) else json.dumps(value)
    assert line[place.column - 1 :].startswith(start)
    for part in value if isinstance(value, dict) else ():
        key = read.keys[(*at, part)]
        assert (key.excerpt or "")[(key.column or 0) - 1 :].startswith(json.dumps(part))
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, below in items:
        _agrees(read, below, (*at, part))


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:-[]{}#&*!|>'\"%@`,? \n\t~<=.0179xé\u2028\ud7ff\ue000"), max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        document.parse(text, "r.yaml")
    except RecipeError as error:
        problems = error.problems
    assert all(problem.message and problem.line and problem.column for problem in problems)
