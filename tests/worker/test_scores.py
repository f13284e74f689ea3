"""Generated answers -> metrics, on answers whose scores can be counted by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run.recipe import FieldMetric
from sysml_run.worker import scores as module
from sysml_run.worker.scores import f1_macro, mae, parse, scores

LABELS = ["low", "high"]


def answers(*values: Any, field: str = "severity") -> list[str]:
    return [json.dumps({field: value}) for value in values]


def test_json_valid_takes_objects_only() -> None:
    texts = ['{"a": 1}', ' {"a": 1}\n', "{}", "[1]", "7", '"text"', "null", '{"a": 1} and more', "{'a': 1}", ""]
    assert scores(["json_valid"], texts, ["{}"] * len(texts)) == {"json_valid": 0.3}


def test_exact_match_leaves_out_the_blanks_around() -> None:
    found = scores(["exact_match"], [" yes\n", "Yes", "no", "y es"], ["yes", "yes", "no ", "yes"])
    assert found == {"exact_match": 0.5}


def test_accuracy_comes_with_the_majority() -> None:
    right = answers("low", "low", "low", "high")
    given = ["not JSON", *answers("low", "high", "high")]
    found = scores([FieldMetric("severity", "accuracy")], given, right)
    assert found == {"severity.accuracy": 0.5, "severity.majority": 0.75}


def test_a_row_whose_right_answer_has_no_such_field_does_not_count() -> None:
    metric = FieldMetric("severity", "accuracy")
    right = [*answers("low", None), '{"other": 1}', "no JSON"]
    assert scores([metric], answers("low", "x", "x", "x"), right) == {
        "severity.accuracy": 1.0, "severity.majority": 1.0,
    }  # fmt: skip
    nothing = scores([metric], answers("low"), ["{}"])
    assert nothing == {"severity.accuracy": None, "severity.majority": None}


def test_lists_and_objects_are_compared_whatever_the_order_of_keys() -> None:
    metric = FieldMetric("tags", "accuracy")
    right = ['{"tags": {"b": 1, "a": [2]}}', '{"tags": [1, 2]}', '{"tags": []}']
    given = ['{"tags": {"a": [2], "b": 1}}', '{"tags": [2, 1]}', '{"tags": []}']
    assert scores([metric], given, right)["tags.accuracy"] == pytest.approx(2 / 3)


def test_f1_macro_by_hand() -> None:
    """low: TP 2, FP 1, FN 1 -> 4/6; high: TP 1, FP 1, FN 1 -> 2/4; info: TP 0, FN 1 -> 0; other is no class."""
    pairs = [
        ("low", "low"), ("low", "low"), ("high", "low"), ("high", "high"), ("low", "high"), ("other", "info"),
    ]  # fmt: skip
    assert f1_macro(pairs) == pytest.approx((4 / 6 + 2 / 4 + 0) / 3)
    assert f1_macro([]) is None
    assert f1_macro([(None, "low")]) == 0.0


def test_f1_macro_is_the_same_number_in_every_process() -> None:
    """Text hashes differently in each process; the sum of floats must not depend on it."""
    code = (
        "from sysml_run.worker.scores import f1_macro\n"
        "print(repr(f1_macro([(f'c{n * n % 7}', f'c{n % 11}') for n in range(200)])))"
    )
    env = {"PYTHONPATH": str(Path(module.__file__).parents[2])}
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env=env | {"PYTHONHASHSEED": str(seed)}, capture_output=True, check=True
        ).stdout
        for seed in range(6)
    }
    assert len(printed) == 1


def test_mean_error_of_the_answers_that_hold_a_number() -> None:
    given = [*answers(50, 70.5, "70", True, None, field="score"), "no JSON"]
    right = answers(40, 70, 70, 1, 5, 5, field="score")
    assert scores([FieldMetric("score", "mae")], given, right) == {"score.mae": pytest.approx((10 + 0.5) / 2)}
    assert mae([("a", 1)]) is None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "-" + "9" * 400, "9" * 5000])
def test_numbers_that_no_arithmetic_can_use(number: str) -> None:
    given = [f'{{"score": {number}}}', '{"score": 3}']
    found = scores([FieldMetric("score", "mae")], given, answers(1, 1, field="score"))
    assert found == {"score.mae": 2.0}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '{"a": "\ud800"}', "\x00"])
def test_any_text_can_be_an_answer(text: str) -> None:
    assert parse(text) in (None, {"a": "\ud800"})


@given(st.lists(st.tuples(st.text(), st.sampled_from(LABELS)), min_size=1))
def test_whatever_was_generated_shares_are_shares(rows: list[tuple[str, str]]) -> None:
    metrics = ["json_valid", "exact_match", FieldMetric("severity", "accuracy"), FieldMetric("severity", "f1_macro")]
    found = scores(metrics, [text for text, _ in rows], answers(*(label for _, label in rows)))
    assert all(value is not None and 0 <= value <= 1 for value in found.values())


def test_several_metrics_of_one_field() -> None:
    metrics = [FieldMetric("severity", "accuracy"), FieldMetric("severity", "f1_macro"), "json_valid"]
    assert scores(metrics, answers(*LABELS), answers(*LABELS)) == {
        "severity.accuracy": 1.0, "severity.majority": 0.5, "severity.f1_macro": 1.0, "json_valid": 1.0,
    }  # fmt: skip
    assert scores([], ["x"], ["y"]) == {}
