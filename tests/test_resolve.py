"""Defaults, paths, sources and types of a resolved recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run import document, overrides, recipe, schema, validate
from sysml_run.document import Document
from sysml_run.resolve import build, resolve

MINIMAL = """\
version: 1
name: minimal
model: {base_model: tiny:llama}
datasets:
  - path: rows.jsonl
    type: messages
optimizer:
  name: adamw
  learning_rate: 2e-4
training: {max_steps: 10.0, max_grad_norm: 1}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Document:
    return document.parse(MINIMAL, str(tmp_path / "r.yaml"))


def test_defaults_are_filled_and_numbers_have_one_spelling(minimal: Document) -> None:
    resolved = resolve(minimal)
    made = resolved.recipe
    assert isinstance(made.optimizer, recipe.AdamW)
    assert made.optimizer.betas == (0.9, 0.999)
    assert made.hardware == recipe.HardwareCpu("cpu", 1, None, "auto", None, recipe.Offload("none", "none"))
    assert made.lora is None
    assert repr(made.training.max_steps) == "10"
    assert repr(made.training.max_grad_norm) == "1.0"
    assert json.loads(json.dumps(resolved.values)) == resolved.values


def test_a_section_that_is_named_gets_its_defaults(minimal: Document) -> None:
    made = resolve(overrides.apply(minimal, ["lora={}", "evaluation.best={}", "quantization.export=[{method: gptq}]"]))
    assert made.recipe.lora == recipe.Lora(16, 32.0, 0.0, "all-linear", False, False)
    assert made.recipe.evaluation.best == recipe.Best("eval_loss")
    assert made.recipe.quantization.export[0] == recipe.Gptq("gptq", 4, 128, False, True, 0.1, recipe.Calibration(128))


def test_sources(minimal: Document) -> None:
    changed = overrides.swap_hardware(overrides.apply(minimal, ["optimizer.betas=[0.9, 0.98]"]), "cpu:2")
    sources = resolve(changed).sources
    assert sources["datasets.0.path"] == f"{minimal.source}:5"
    assert sources["optimizer.betas.1"] == "--set optimizer.betas=[0.9, 0.98]"
    assert sources["hardware.devices"] == "--hardware cpu:2"
    assert sources["hardware.offload.optimizer"] == sources["tracking"] == sources["lora"] == "default"


def test_an_open_section_keeps_its_keys(minimal: Document) -> None:
    made = resolve(overrides.apply(minimal, ['search.space={optimizer.learning_rate: [1, "x"]}']))
    assert made.values["search"]["space"] == {"optimizer.learning_rate": [1, "x"]}
    assert made.recipe.search is not None
    assert made.recipe.search.space == {"optimizer.learning_rate": (1, "x")}
    assert 'search.space."optimizer.learning_rate".0' in made.sources


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("rows.jsonl", "{recipe}/rows.jsonl"),
        ("../*.jsonl", "{up}/*.jsonl"),
        ("/data/rows", "/data/rows"),
        ("~/rows", "{home}/rows"),
        ("~nobody-has-this-name/rows", "{recipe}/~nobody-has-this-name/rows"),
        ("hub:owner/name", "hub:owner/name"),
    ],
)
def test_a_path_in_a_recipe_counts_from_it(written: str, found: str, tmp_path: Path) -> None:
    minimal = document.parse(MINIMAL.replace("rows.jsonl", written), str(tmp_path / "r.yaml"))
    wanted = found.format(recipe=tmp_path, up=tmp_path.parent, home=Path.home())
    assert resolve(minimal).recipe.datasets[0].path == wanted


def test_a_path_on_the_command_line_counts_from_the_current_folder(
    minimal: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    changed = overrides.apply(minimal, ["datasets.0.path=rows.jsonl", "artifacts.dir=models"])
    assert resolve(changed).recipe.datasets[0].path == str(tmp_path / "here" / "rows.jsonl")
    assert resolve(changed).recipe.artifacts.dir == "models"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("owner/name", "owner/name"),
        ("gpt2", "gpt2"),
        ("x" * 300, "x" * 300),
        ("tiny:mixtral", "tiny:mixtral"),
        ("package:module/file.gguf", "package:module/file.gguf"),
        ("./owner/name", "{recipe}/owner/name"),
        ("models/here", "{recipe}/models/here"),
        ("/models/x", "/models/x"),
    ],
)
def test_a_model_is_a_path_only_where_it_is_one(written: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "models" / "here").mkdir(parents=True)
    minimal = document.parse(MINIMAL.replace("tiny:llama", written), str(tmp_path / "r.yaml"))
    assert resolve(minimal).recipe.model.base_model == found.format(recipe=tmp_path)


def _value(node: schema.Node) -> st.SearchStrategy[Any]:
    """Anything the schema takes."""
    if "oneOf" in node:
        return st.one_of([_value(one) for one in schema.branches(node)])
    if "const" in node or "enum" in node:
        return st.sampled_from(node.get("enum", [node.get("const")]))
    if "pattern" in node:
        return st.sampled_from(node["examples"])
    return st.one_of([_of_kind(kind, node) for kind in schema.types(node)] or [st.integers()])


def _of_kind(kind: str, node: schema.Node) -> st.SearchStrategy[Any]:
    if kind == "object":
        return _section(node)
    if kind == "array":
        return st.lists(_value(node["items"]), min_size=node.get("minItems", 0), max_size=node.get("maxItems", 3))
    low, high = node.get("minimum", node.get("exclusiveMinimum", -5)), node.get("maximum", 10**6)
    above = "exclusiveMinimum" in node
    strategies: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(low + above, high),
        "number": st.floats(low, min(high, node.get("exclusiveMaximum", high)), exclude_min=above, exclude_max=True),
        "string": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return strategies[kind]


def _section(node: schema.Node) -> st.SearchStrategy[Any]:
    if "properties" not in node:
        return st.dictionaries(st.text(), _value(node["additionalProperties"]), max_size=2)
    made = {name: _value(below) for name, below in node["properties"].items()}
    required = {name: made.pop(name) for name in node.get("required", ())}
    return st.fixed_dictionaries(required, optional=made)


@settings(deadline=None)
@given(_value(schema.load()))
def test_what_is_resolved_is_valid_and_resolves_to_itself(tree: dict[str, Any]) -> None:
    empty = document.parse("null", "r.yaml")
    read = overrides.set_value(empty, (), tree, "test")
    assert validate.check(read) == []
    once = resolve(read)
    again = overrides.set_value(empty, (), once.values, "test")
    assert validate.check(again) == []
    assert resolve(again).values == once.values
    assert build(json.loads(json.dumps(once.values))) == once.recipe
    assert json.dumps(dataclasses.asdict(once.recipe)) == json.dumps(once.values)
