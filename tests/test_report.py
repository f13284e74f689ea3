"""How problems look on a screen and as JSON."""

from __future__ import annotations

import io
import json

import pytest

from sysml_run import report
from sysml_run.errors import Problem, RecipeError, StageError, SysmlError, UsageError

ERROR = Problem("r.yaml", "lora.r", 3, 6, "expected a whole number", "write 8", "error", "  r: x")
WARNING = Problem("--set a=1", "", None, None, "is odd", severity="warning")


def test_text() -> None:
    assert report.text([ERROR, WARNING]) == (
        "r.yaml:3:6: lora.r: expected a whole number\n"
        "      r: x\n"
        "         ^\n"
        "  hint: write 8\n"
        "--set a=1: warning: is odd\n"
    )
    shown = report.files_text({"r.yaml": [ERROR], "s.yaml": [], "t.yaml": [WARNING]})
    assert shown == report.text([ERROR, WARNING]) + "3 recipes: 1 error, 1 warning\n"
    assert report.files_text({"s.yaml": []}) == "1 recipe: no problems\n"


def test_github() -> None:
    odd = Problem("a,b:c.yaml", "lora.r", 3, 6, "50 %\nmore", None)
    assert report.files_github({"r.yaml": [ERROR], "t.yaml": [WARNING], "a": [odd]}) == (
        "::error file=r.yaml,line=3,col=6,title=lora.r::expected a whole number%0Awrite 8\n"
        "::warning file=--set a=1::is odd\n"
        "::error file=a%2Cb%3Ac.yaml,line=3,col=6,title=lora.r::50 %25%0Amore\n"
        "3 recipes: 2 errors, 1 warning\n"
    )
    piped = Problem("<stdin>", "lora.r", 3, 6, "bad")
    assert report.files_github({"<stdin>": [piped]}).startswith("::error title=<stdin>%3A3%3A6 lora.r::bad\n")


def test_json() -> None:
    (first, second) = json.loads(report.files_json({"r.yaml": [ERROR], "s.yaml": []}))["files"]
    assert second == {"path": "s.yaml", "problems": []}
    (problem,) = first["problems"]
    assert {
        "line": 3,
        "column": 6,
        "pointer": "lora.r",
        "message": "expected a whole number",
    }.items() <= problem.items()
    assert (problem["hint"], problem["severity"], problem["source"]) == ("write 8", "error", "r.yaml")


@pytest.mark.parametrize(
    ("line", "column", "shown"),
    [
        ("\tx: y", 5, "     x: y\n        ^"),
        ("a\x1b[31m: y", 8, "    a?[31m: y\n           ^"),
        ("日本: y", 5, "    日本: y\n          ^"),
        ("e\u0301: y", 5, "    e\u0301: y\n       ^"),
        ("x" * 300 + "y", 301, "    " + "x" * 60 + "y\n    " + " " * 60 + "^"),
        ("", 1, "    \n    ^"),
    ],
)
def test_the_caret_stands_under_its_character(line: str, column: int, shown: str) -> None:
    problem = Problem("r.yaml", "", 1, column, "bad", excerpt=line)
    assert report.text([problem]).splitlines()[1:] == shown.split("\n")


def test_what_a_recipe_says_cannot_change_the_terminal() -> None:
    problem = Problem("r\x1b.yaml", "a", 1, 1, "got \x9b31m", "say \x07")
    assert report.text([problem]).isprintable() is False
    assert all(line.isprintable() for line in report.text([problem]).splitlines())


def test_colour() -> None:
    shown = report.text([ERROR], colour=True)
    assert "\x1b[31mlora.r: expected a whole number\x1b[0m" in shown
    assert "\x1b[33mwarning: is odd" in report.files_text({"r": [WARNING]}, colour=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_who_wants_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert report.wants_colour(Terminal())
    assert not report.wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not report.wants_colour(Terminal())


def test_errors_know_their_exit_code_and_words() -> None:
    error = RecipeError([ERROR, WARNING])
    assert (error.message, error.hint) == ("r.yaml:3:6: expected a whole number (and 1 more)", "write 8")
    assert str(RecipeError([WARNING])) == "--set a=1: is odd"
    assert error.problems == (ERROR, WARNING)
    assert [kind.exit_code for kind in (SysmlError, StageError, UsageError, RecipeError)] == [1, 1, 2, 2]
