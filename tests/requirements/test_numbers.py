"""What each pipeline trained with can be written in a recipe, and is let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sysml_run import document, overrides, resources, rules, validate
from sysml_run.resolve import resolve

NUMBERS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("numbers.yaml").read_text())
ELSEWHERE = ("is gated, and no token is set", "there is nothing at")  # true of this machine, not of the numbers


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_a_pipeline_are_a_valid_recipe(name: str) -> None:
    wanted = NUMBERS[name]
    read = document.load(resources.recipes() / f"{wanted['recipe']}.yaml")
    changed = overrides.apply(read, wanted["set"])
    assert not validate.check(changed)
    found = rules.check(resolve(changed).recipe, changed, running=False)
    told = {problem.pointer for problem in found if not any(words in problem.message for words in ELSEWHERE)}
    assert told == set(wanted.get("warns", ())), found
    assert {problem.severity for problem in found} <= {"warning"}


def test_every_ready_recipe_stands_for_a_pipeline_but_those_of_our_own() -> None:
    ours = {"quickstart", "mistral_distill"}
    assert {each["recipe"] for each in NUMBERS.values()} == {
        path.stem for path in resources.recipes().glob("*.yaml") if path.stem not in ours
    }
