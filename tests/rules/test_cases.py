"""The folders of cases cover the language: every rule and every keyword of the schema speaks up in one of them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from sysml_run import document, rules, schema, validate
from sysml_run.document import Document
from sysml_run.errors import Problem, RecipeError
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

CASES = sorted((Path(__file__).parents[1] / "cases").glob("*valid/*/recipe.yaml"))
STRUCTURE = ("type", "required", "additionalProperties", "oneOf")


@cache
def documents() -> tuple[Document, ...]:
    """The cases that are YAML."""
    return tuple(read for path in CASES if (read := load(path)) is not None)


@cache
def recipes() -> tuple[Recipe, ...]:
    """The cases that keep to the schema."""
    return tuple(resolve(read).recipe for read in documents() if not errors(read))


def load(path: Path) -> Document | None:
    try:
        return document.load(path)
    except RecipeError:
        return None


def errors(read: Document) -> list[Problem]:
    return [problem for problem in validate.check(read) if problem.severity == "error"]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_a_case(rule: rules.Rule, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recipes()
    if rule in (rules.extras.export_tools, rules.extras.trackers, rules.extras.metric_tools):
        monkeypatch.setattr(sys, "path", [])  # where everything is installed, nothing is missing
    assert any(list(rule(recipe)) for recipe in found), (
        f"make tests/cases/*valid/<name>/ in which {rule.__name__} fires"
    )


def test_every_function_that_is_a_rule_is_asked() -> None:
    """A rule that is written and left out of RULES would never fire."""
    themes = [getattr(rules, name) for name in dir(rules) if getattr(rules, name).__class__.__name__ == "module"]
    written = {
        function
        for theme in themes
        for name, function in vars(theme).items()
        if not name.startswith("_") and getattr(function, "__annotations__", {}).get("return") == "Findings"
    }
    assert written == set(rules.RULES)
    assert len(rules.RULES) == len(set(rules.RULES))


@pytest.mark.parametrize("keyword", validate.KEYWORDS)
def test_every_keyword_of_values_has_a_case(keyword: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [validate.check(read) for read in documents()]
    monkeypatch.setattr(validate, "KEYWORDS", {name: how for name, how in validate.KEYWORDS.items() if name != keyword})
    assert [validate.check(read) for read in documents()] != before


@pytest.mark.parametrize("keyword", STRUCTURE)
def test_every_keyword_of_structure_has_a_case(keyword: str) -> None:
    judge = Draft202012Validator(schema.bundled())
    assert any(error.validator == keyword for read in documents() for error in judge.iter_errors(read.value))


def test_these_are_all_the_keywords_there_are() -> None:
    used = {keyword for _, node in schema.walk(schema.load()) for one in schema.branches(node) for keyword in one}
    words = {"description", "default", "examples", "title", "properties", "items"}
    assert {name for name in used if not name.startswith("x-")} - words <= {*validate.KEYWORDS, *STRUCTURE}
