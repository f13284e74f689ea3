"""Changes from the command line: what they set, what they leave, and where their values say they come from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run import document, overrides
from sysml_run.document import Document
from sysml_run.errors import UsageError

TEXT = """\
name: base
datasets:
  - path: a.jsonl
    type: messages
lora: null
optimizer: {name: adamw, betas: [0.9, 0.99]}
"""


@pytest.fixture
def base() -> Document:
    return document.parse(TEXT, "r.yaml")


@pytest.mark.parametrize(
    ("assignment", "pointer", "value"),
    [
        ("optimizer.learning_rate=2e-4", "optimizer.learning_rate", 2e-4),
        ("datasets.0.path=b.jsonl", "datasets.0.path", "b.jsonl"),
        ("optimizer.betas.1=0.999", "optimizer.betas.1", 0.999),
        ("lora.r=8", "lora.r", 8),
        ("evaluation.generate.rows=4", "evaluation.generate.rows", 4),
        ("evaluation.generate={rows: 4}", "evaluation.generate", {"rows": 4}),
        ("name=yes", "name", "yes"),
        ("name='1'", "name", "1"),
        ("description=a = b", "description", "a = b"),
        ("lora=", "lora", None),
        ('search.space."a.b"=[1]', 'search.space."a.b"', [1]),
    ],
)
def test_set(base: Document, assignment: str, pointer: str, value: object) -> None:
    changed = overrides.apply(base, [assignment])
    at = document.pointer(pointer)
    assert _get(changed.value, at) == value
    assert changed.values[at].label() == f"--set {assignment}"
    assert changed.place(at).line is None


def test_the_rest_keeps_its_place_and_the_document_is_not_touched(base: Document) -> None:
    before = copy.deepcopy(base)
    changed = overrides.apply(base, ["optimizer={name: sgd}", "evaluation.generate.rows=4"])
    assert base == before
    assert changed.values[("datasets", 0, "path")] is base.values[("datasets", 0, "path")]
    assert ("optimizer", "betas") not in changed.values
    assert changed.values[("evaluation",)].label() == "--set evaluation.generate.rows=4"
    assert changed.values[("optimizer", "name")].label() == "--set optimizer={name: sgd}"
    assert list(changed.value) == ["name", "datasets", "lora", "optimizer", "evaluation"]


def test_the_last_of_two_wins(base: Document) -> None:
    changed = overrides.apply(base, ["name=a", "name=b"])
    assert changed.value["name"] == "b"
    assert changed.keys[("name",)].source == "--set name=b"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("name", "a key and a value are wanted"),
        ("=1", "a key and a value are wanted"),
        ("a..b=1", "'a..b' is not a key"),
        ("name=[", "not YAML"),
        ("datasets.1.path=x", "datasets has items 0 to 0, not 1"),
        ("datasets.path=x", "datasets has items 0 to 0, not path"),
        ("name.x=1", "name is a single value, not a section"),
        ("nothing.0=1", "nothing is not written, not a list"),
        ("optimizer.0=1", "optimizer is a section, not a list"),
        ("0=1", "the recipe is a section, not a list"),
    ],
)
def test_what_cannot_be_set(base: Document, assignment: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        overrides.apply(base, [assignment])


@pytest.mark.parametrize("value", [[1], 3, None])
def test_a_recipe_that_is_no_section(value: object) -> None:
    base = document.parse(f"{'null' if value is None else value}", "r.yaml")
    if value is None:
        assert overrides.apply(base, ["name=x"]).value == {"name": "x"}
    else:
        with pytest.raises(UsageError, match="the recipe"):
            overrides.apply(base, ["name=x"])


@pytest.mark.parametrize(
    ("spec", "section"),
    [
        ("cpu", {"accelerator": "cpu", "devices": 1}),
        ("cpu:2", {"accelerator": "cpu", "devices": 2}),
        ("gpu", {"accelerator": "gpu"}),
        ("gpu:8", {"accelerator": "gpu", "devices": 8}),
        ("gpu:h100-80gb", {"accelerator": "gpu", "type": "h100-80gb"}),
        ("gpu:8xh100-80gb", {"accelerator": "gpu", "devices": 8, "type": "h100-80gb"}),
        ("gpu:2x8", {"accelerator": "gpu", "devices": 8, "nodes": 2}),
        ("gpu:2x8xh100-80gb", {"accelerator": "gpu", "devices": 8, "nodes": 2, "type": "h100-80gb"}),
        ("tpu:v3-8", {"accelerator": "tpu", "topology": "v3-8"}),
    ],
)
def test_hardware(base: Document, spec: str, section: dict[str, object]) -> None:
    changed = overrides.swap_hardware(base, spec)
    assert changed.value == {**base.value, "hardware": section}
    assert changed.values[("hardware", "accelerator")].label() == f"--hardware {spec}"


@pytest.mark.parametrize(
    "spec", ["", "cpu:", "cpu:x", "gpu:", "gpu:8x", "gpu:8xH100", "tpu", "tpu:", "npu:8", "gpu:1x2x3x4"]
)
def test_hardware_that_is_not_understood(base: Document, spec: str) -> None:
    with pytest.raises(UsageError, match="not understood") as caught:
        overrides.swap_hardware(base, spec)
    assert "gpu:8xh100-80gb" in (caught.value.hint or "")


VALUES = st.recursive(st.integers() | st.text(), lambda below: st.lists(below) | st.dictionaries(st.text(), below))


@given(st.lists(st.text(), min_size=1).map(tuple), VALUES)
def test_what_is_set_is_there(at: tuple[str, ...], value: object) -> None:
    base = document.parse("null", "r.yaml")
    changed = overrides.set_value(base, at, value, "--smoke")
    assert _get(changed.value, at) == value
    assert {place.source for pointer, place in changed.values.items() if pointer} == {"--smoke"}


def _get(value: Any, at: tuple[str | int, ...]) -> Any:
    for part in at:
        value = value[part]
    return value
