"""The schemas keep the house subset, the types are made from them, and their names exist in the real libraries."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sysml_run import resources, schema, validate

ROOT = Path(__file__).parent.parent
FILES = sorted(resources.schemas().glob("*.json"))
WORDS = {"$schema", "$ref", "$defs", "title", "description", "default", "examples", "type", "properties", "items"}
WORDS |= {"required", "additionalProperties", "oneOf", "x-path", "x-optim", "x-set", "x-known-as", "x-values"}
WORDS |= {*validate.KEYWORDS}


def nodes(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a file, with where it stands."""
    yield place, node
    for word in ("properties", "$defs"):
        for name, below in node.get(word, {}).items():
            yield from nodes(below, f"{place}/{word}/{name}")
    for at, below in enumerate(node.get("oneOf", ())):
        yield from nodes(below, f"{place}/oneOf/{at}")
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            yield from nodes(node[word], f"{place}/{word}")


NODES = {place: node for file in FILES for place, node in nodes(json.loads(file.read_text()), file.name)}
KEYS = {".".join(path): node for path, node in schema.walk(schema.load())}


def test_there_is_a_file_for_each_section() -> None:
    assert len(FILES) >= 14
    assert len(KEYS) > 100


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_pass_the_metaschema(file: Path) -> None:
    Draft202012Validator.check_schema(json.loads(file.read_text()))


@pytest.mark.parametrize("place", NODES)
def test_house_subset(place: str) -> None:
    node = NODES[place]
    assert set(node) <= WORDS, "a keyword that validate.py does not know is not checked"
    assert "description" in node or "$ref" in node or node.get("type") == "null"
    if "properties" in node:
        assert node["additionalProperties"] is False
        assert set(node.get("required", ())) <= set(node["properties"])
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", node["title"])
        assert not any(keyword.iskeyword(name) for name in node["properties"])
    if "enum" in node:
        assert "type" in node, "without a type, 1 and true are the same name"
    if "pattern" in node:
        assert node["examples"]
    if "x-set" in node:
        assert (node["type"], node["x-set"]) == ("array", True), "only a list can be without order"


@pytest.mark.parametrize("place", [place for place, node in NODES.items() if "properties" in node])
def test_a_key_is_required_or_has_a_default(place: str) -> None:
    node = NODES[place]
    for name in node["properties"]:
        below = KEYS_BY_SECTION[node["title"]][name]
        assert (name in node.get("required", ())) != ("default" in below), name


def _sections() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for node in [schema.load(), *(below for _, below in schema.walk(schema.load()))]:
        for one in [*schema.branches(node), *schema.branches(node.get("items", {}))]:
            if "properties" in one:
                found[one["title"]] = one["properties"]
    return found


KEYS_BY_SECTION = _sections()


@pytest.mark.parametrize("key", KEYS)
def test_examples_and_defaults_are_valid(key: str) -> None:
    node = KEYS[key]
    judge = Draft202012Validator(node)
    assert node["description"].endswith(".")
    assert node["examples"]
    for value in [*node["examples"], *([node["default"]] if "default" in node else [])]:
        judge.validate(value)


@pytest.mark.parametrize("key", [key for key, node in KEYS.items() if schema.values(node)])
def test_values_of_other_trainers_stand_for_values_of_ours(key: str) -> None:
    node = KEYS[key]
    judge = Draft202012Validator(node)
    for theirs, ours in schema.values(node).items():
        assert theirs == theirs.lower().replace("-", "_"), "it would never be found"
        assert judge.is_valid(ours) or ours in [one.get("const") for one in schema.branches(node)]
        assert not judge.is_valid(theirs), "it is one of ours"


@pytest.mark.parametrize("place", [place for place, node in NODES.items() if "oneOf" in node])
def test_the_branches_of_a_choice_can_be_told_apart(place: str) -> None:
    """By one constant key in every object, or by the JSON type; never two of a type without a constant."""
    named = place.split("/")
    node = schema._expand(NODES[place], resources.schemas(), named[0], {})
    objects = [one for one in schema.branches(node) if "properties" in one]
    key = schema.discriminator(node)
    assert len(objects) < 2 or key is not None
    assert all(key in one["properties"] and key in one["required"] for one in objects if key is not None)
    others = [kind for one in schema.branches(node) if "properties" not in one for kind in schema.types(one)]
    assert len(others) == len(set(others))


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_recipe_types", ROOT / "tools" / "make_recipe_types.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_types_are_fresh() -> None:
    made = _generator()
    fresh = made.render() == made.TARGET.read_text(encoding="utf-8")
    assert fresh, "the schemas have changed; run: python tools/make_recipe_types.py"


def test_two_objects_of_one_name_are_refused() -> None:
    types = _generator().Types()
    types.record({"title": "A", "properties": {"x": {"type": "integer"}}})
    with pytest.raises(ValueError, match="two different objects are called A"):
        types.record({"title": "A", "properties": {"x": {"type": "string"}}})


def test_optimizers_exist_in_transformers() -> None:
    from transformers.training_args import OptimizerNames

    named = [one["x-optim"] for one in schema.branches(schema.load()["properties"]["optimizer"])]
    assert len(named) == len(set(named))
    assert set(named) <= {name.value for name in OptimizerNames}


def test_schedulers_exist_in_transformers() -> None:
    from transformers import SchedulerType

    assert set(KEYS["optimizer.lr_scheduler"]["enum"]) <= {name.value for name in SchedulerType}
