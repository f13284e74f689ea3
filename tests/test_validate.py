"""Whole recipes, good and bad, with the report that each must give; and jsonschema as the judge of the verdict."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sysml_run import caches, document, overrides, report, rules, schema, validate
from sysml_run.errors import Problem, RecipeError
from sysml_run.resolve import resolve

CASES = Path(__file__).parent / "cases"
VALID = sorted(path.parent.name for path in CASES.glob("valid/*/recipe.yaml"))
INVALID = sorted(path.parent.name for path in CASES.glob("invalid/*/recipe.yaml"))


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports must not depend on the hub's token and files of whoever runs the tests."""
    for name in (*caches.TOKENS, "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def problems(path: Path) -> list[Problem]:
    try:
        read = document.load(path)
    except RecipeError as error:
        return list(error.problems)
    return validate.check(read) or rules.check(resolve(read).recipe, read, running=False)


def test_there_are_cases_and_each_is_a_recipe() -> None:
    assert len(VALID) >= 5
    assert len(INVALID) >= 60
    assert {path.name for path in CASES.glob("*valid/*")} == {*VALID, *INVALID}


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name: str, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / "invalid" / name)
    found = problems(Path("recipe.yaml"))
    assert any(problem.severity == "error" for problem in found)
    golden(CASES / "invalid" / name / "expected.txt", report.text(found))


@pytest.mark.parametrize("name", VALID)
def test_valid(name: str, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CASES / "valid" / name
    monkeypatch.chdir(folder)
    found = problems(Path("recipe.yaml"))
    assert not any(problem.severity == "error" for problem in found)
    golden(folder / "expected.txt", report.text(found).replace(str(folder), "<folder>"))
    values = json.dumps(resolve(document.load(Path("recipe.yaml"))).values, indent=2, ensure_ascii=False)
    golden(folder / "resolved.json", values.replace(str(CASES), "<cases>") + "\n")


@pytest.mark.parametrize("name", [*VALID, *INVALID])
def test_problems_come_in_file_order_and_point_into_the_file(name: str) -> None:
    (path,) = CASES.glob(f"*valid/{name}/recipe.yaml")
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    found = problems(path)
    assert found == sorted(found, key=lambda problem: (problem.line, problem.column))
    for problem in found:
        assert problem.line is not None
        assert problem.excerpt == lines[problem.line - 1]
        assert 1 <= (problem.column or 0) <= len(problem.excerpt) + 1


def test_a_value_from_the_command_line_is_named_by_it() -> None:
    base = document.load(CASES / "valid" / "minimal" / "recipe.yaml")
    changed = overrides.apply(base, ["optimizer.learning_rate=fast", "model.foo=1", "optimizer.name=sgd", "seed=-1"])
    shown = [(one.source, one.line, one.pointer) for one in validate.check(changed)]
    assert shown == [
        ("--set model.foo=1", None, "model.foo"),
        ("--set optimizer.learning_rate=fast", None, "optimizer.learning_rate"),
        ("--set seed=-1", None, "seed"),
    ]


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("datasets={path: x, type: text}", "start each item with a dash"),
        ("tracking=3", "for example [tensorboard]"),
        ("optimizer.betas=3", "for example [0.9, 0.999]"),
        ("optimizer=sgd", "write a section with name: sgd"),
        ("optimizer=sdg", None),
        ("model.revision=[x]", None),
        ("model.dtype=16", None),
        ("learning_rat=1", "did you mean learning_rate? It belongs in optimizer"),
        ("training.max_step_nr=1", "did you mean max_steps?"),
        ("lora.seed=1", "it belongs at the top level"),
        ("lora.qqq=1", "known here: r, alpha, dropout, target_modules, use_rslora, use_dora"),
        ("lora_r=8", "write lora.r"),
        ("lr=1e-4", "write optimizer.learning_rate"),
        ("training.per_device_train_batch_size=8", "write training.micro_batch_size"),
        ("max_seq_length=8", "write prompt.sequence_len"),
        ("val_set_size=0.1", "write split.validation"),
        (f"model.dtype={'x' * 99}", None),
        ("seed=0x" + "f" * 300, None),
    ],
)
def test_hints(assignment: str, hint: str | None) -> None:
    base = document.load(CASES / "valid" / "minimal" / "recipe.yaml")
    (problem,) = validate.check(overrides.apply(base, [assignment]))
    assert problem.hint == hint
    assert len(problem.message) < 200


def test_thousands_of_unknown_keys_are_named_within_two_seconds() -> None:
    base = (CASES / "valid" / "minimal" / "recipe.yaml").read_text()
    read = document.parse(base + "".join(f"key{number * 7919:x}: 1\n" for number in range(20_000)), "r.yaml")
    start = time.process_time()
    found = validate.check(read)
    assert time.process_time() - start < 2
    assert len(found) == 20_000
    assert found[0].hint
    assert found[-1].message == "unknown key"


NODES = [json.loads(path.read_text()) for path in sorted(CASES.glob("valid/*/resolved.json"))]
SCRAPS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "cpu", "gpu", "tpu", "v3-8", "v3-8\n", "adamw", "sgd", "auto", "json_valid", "nf4", "5GB", "gptq"]
    ),
    st.just([]),
    st.just({}),
    st.just([0.5, 1]),
    st.just({"accelerator": "tpu", "topology": "v3-8"}),
    st.just({"name": "sgd", "learning_rate": 1}),
)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_the_verdict_is_that_of_jsonschema(data: st.DataObject) -> None:
    """Put a scrap anywhere in a good recipe, or take a key away: both say yes, or both say no."""
    tree = copy.deepcopy(data.draw(st.sampled_from(NODES)))
    _break(tree, data)
    ours = validate.check(overrides.set_value(document.parse("null", "r.yaml"), (), tree, "test"))
    theirs = list(Draft202012Validator(schema.bundled()).iter_errors(tree))
    assert bool(ours) == bool(theirs), (ours, theirs)


def _break(tree: Any, data: st.DataObject) -> None:
    places = [*tree] if isinstance(tree, dict) else list(range(len(tree)))
    place = data.draw(st.sampled_from([*places, "new"] if isinstance(tree, dict) else places))
    below = tree[place] if place in places else None
    if isinstance(below, dict | list) and below and data.draw(st.integers(0, 3)):
        _break(below, data)
    elif isinstance(tree, dict) and below is not None and data.draw(st.booleans()):
        del tree[place]
    else:
        tree[place] = data.draw(SCRAPS)
