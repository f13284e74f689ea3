"""Every key of the language is explained, under each of its names; the schema as one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from sysml_run import cli, document, explain, explainview, resources, schema
from sysml_run.errors import RecipeError, UsageError
from sysml_run.wording import flow

GOLDEN = Path(__file__).parent / "explain"
CASES = sorted((Path(__file__).parent / "cases").glob("*/*/recipe.yaml"))
KEYS = {".".join(path): node for path, node in schema.walk(schema.load())}
SHOWN = ("optimizer.lr_scheduler", "optimizer.betas", "optimizer.name", "optimizer", "hardware.devices")
SHOWN += ("hardware.zero_stage", "lora.r", "lora", "quantization.export", "artifacts.max_shard_size", "metric")


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_meaning_type_and_example(key: str) -> None:
    said = explainview.text(key)
    words = " ".join(said.split())
    assert said.startswith(key.replace(".[]", "") + "\n")
    assert " ".join(KEYS[key]["description"].split()) in words
    assert "\n  type " in said
    assert "\n  default " in said
    for value in KEYS[key]["examples"]:
        assert f"{key.split('.')[-1]}: {flow(value)}" in said


@pytest.mark.parametrize("key", SHOWN)
def test_words(key: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"{key}.txt", explainview.text(key))


def test_without_a_key_every_section_is_listed(capsys) -> None:
    assert cli.main(["explain"]) == 0
    said = capsys.readouterr().out
    for name in schema.load()["properties"]:
        assert f"\n  {name} " in said
    assert "sysml-run explain SECTION.KEY" in said


@pytest.mark.parametrize("key", ["datasets.0.path", "datasets.path", "datasets.[].path", "datasets[2].path"])
def test_an_item_of_a_list_may_be_written_in_any_way(key: str, capsys) -> None:
    assert cli.main(["explain", key]) == 0
    assert capsys.readouterr().out.startswith("datasets.path\n")


def test_a_last_name_is_enough_when_there_is_one() -> None:
    assert explainview.text("r") == explainview.text("lora.r")
    assert explainview.text("early_stopping.patience") == explainview.text("patience")


def test_several_keys_of_a_name_are_listed() -> None:
    said = explainview.text("metric")
    assert "evaluation.best.metric " in said
    assert "search.metric " in said
    assert "in full" in said


def test_a_key_of_the_top_level_names_the_others_of_its_name() -> None:
    assert "see also optimizer.name\n" in explainview.text("name")


@pytest.fixture
def known_elsewhere() -> dict[explain.Parts, list[explain.Place]]:
    """The language as if two trainers had names for the rank."""
    every = explain.places()
    rank = every["lora", "r"][0]
    names = {"axolotl": ["lora_r"], "trl": ["lora_r", "peft_r"], "habit": ["rank"]}
    node = {**rank.node, "x-known-as": names}
    return {**every, ("lora", "r"): [explain.Place(rank.parts, node, None, 1)]}


def test_names_of_other_trainers_are_shown(known_elsewhere: Any) -> None:
    lines = [row[1] for row in explainview._facts(known_elsewhere["lora", "r"]) if row[0] == "also called"]
    assert lines == ["lora_r in axolotl", "lora_r, peft_r in trl", "rank"]


def test_names_of_other_trainers_are_found(known_elsewhere: Any) -> None:
    assert explain.find("lora_r", known_elsewhere) == [("lora", "r")]
    assert explain.find("rank", known_elsewhere) == [("lora", "r")]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optimizer.learning_rat", "did you mean optimizer.learning_rate?"),
        ("sequnce_lenn", "did you mean prompt.sequence_len?"),
        ("nothing.like.it", "sysml-run explain lists every section"),
        ("..", "sysml-run explain lists every section"),
    ],
)
def test_a_key_that_is_not_there(key: str, hint: str) -> None:
    with pytest.raises(UsageError, match="no key is called") as error:
        explainview.text(key)
    assert error.value.hint == hint


def test_an_unknown_key_is_a_usage_error(capsys) -> None:
    assert cli.main(["explain", "optimzer.betas"]) == 2
    assert "did you mean optimizer.betas?" in capsys.readouterr().err


def _whole() -> Draft202012Validator:
    """The schema as its files, joined by their references."""
    files = {file.name: json.loads(file.read_text()) for file in resources.schemas().glob("*.json")}
    registry: Registry = Registry().with_resources(
        (name, Resource.from_contents(value)) for name, value in files.items()
    )
    return Draft202012Validator({"$ref": schema.ROOT}, registry=registry)


def test_the_schema_as_one_file(capsys) -> None:
    assert cli.main(["schema"]) == 0
    printed = capsys.readouterr().out
    made = json.loads(printed)
    assert printed.endswith("}\n")
    Draft202012Validator.check_schema(made)
    assert printed.count('"$schema"') == 1
    assert "$id" not in made
    one, whole = Draft202012Validator(made), _whole()
    verdicts = []
    for case in [*CASES, *resources.recipes().glob("*.yaml")]:
        try:
            value = document.load(case).value
        except RecipeError:
            continue
        paths = [sorted(str(error.absolute_path) for error in each.iter_errors(value)) for each in (one, whole)]
        assert paths[0] == paths[1], case
        verdicts.append(bool(paths[0]))
    assert verdicts.count(True) >= 10
    assert verdicts.count(False) >= 5
