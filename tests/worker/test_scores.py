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
from sysml_run.worker.scores import Words, by_class, classes, f1_macro, f1_micro, mae, parse, scores

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


def test_json_is_as_it_is_defined() -> None:
    """Python's own reader takes words that no other does."""
    assert scores(["json_valid"], ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e9}'], ["{}"] * 3) == {
        "json_valid": pytest.approx(1 / 3)
    }


SCHEMA = {
    "type": "object",
    "required": ["severity"],
    "properties": {"severity": {"$ref": "#/$defs/word"}},
    "$defs": {"word": {"enum": LABELS}},
}


def test_answers_that_keep_to_a_schema(tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(SCHEMA))
    given = [*answers("low", "odd"), "{}", "no JSON", "[" * 100_000]
    assert scores(["schema_valid"], given, given, str(file)) == {"schema_valid": 0.2}
    file.write_text('{"type": "array"}')
    assert scores(["schema_valid"], ["[1]", "{}"], ["", ""], str(file)) == {"schema_valid": 0.5}


def test_a_schema_makes_nobody_ask_an_address(tmp_path: Path) -> None:
    from referencing.exceptions import Unresolvable

    file = tmp_path / "answer.json"
    file.write_text('{"$ref": "http://127.0.0.1:9/other.json"}')
    with pytest.raises(Unresolvable):
        scores(["schema_valid"], ["{}"], ["{}"], str(file))


def test_field_accuracy_counts_the_fields_of_the_right_answers() -> None:
    right = ['{"a": 1, "b": [2], "c": "x"}', '{"a": 1}', "no JSON"]
    given = ['{"a": 1, "b": [2], "more": 0}', "no JSON", '{"a": 1}']
    assert scores(["field_accuracy"], given, right) == {"field_accuracy": 0.5}
    assert scores(["field_accuracy"], ["{}"], ["text"]) == {"field_accuracy": None}


def test_rouge_l_by_hand() -> None:
    """the cat sat (3 of 4 given, 3 of 6 wanted): 2 * 0.75 * 0.5 / 1.25 = 0.6."""
    found = scores(["rouge_l"], ["The cat, sat quietly"], ["the big cat sat down there"])
    assert found == {"rouge_l": pytest.approx(0.6)}
    assert scores(["rouge_l"], ["a", "b"], ["a", "c"]) == {"rouge_l": 0.5}
    assert scores(["rouge_l"], ["Größe ист"], ["größe ист"]) == {"rouge_l": 1.0}
    assert scores(["rouge_l"], [], []) == {"rouge_l": None}


@given(st.text(alphabet="aB z9_-.,!\n", max_size=40))
def test_words_are_the_librarys_where_it_has_any(text: str) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    assert Words().tokenize(text) == DefaultTokenizer(False).tokenize(text)


def test_calls_of_tools() -> None:
    call, other = '{"name": "look", "arguments": {"pid": 1}}', '{"name": "look", "arguments": {"pid": 2}}'
    given = [f"<tool_call>{call}</tool_call>", other, f"{call}{call}", call, "no call"]
    assert scores(["tool_calls"], given, [call, call, f"{call}{call}", "no call", "no call"]) == {
        "tool_calls": pytest.approx(2 / 3)
    }
    assert scores(["tool_calls"], ["x"], ["no call"]) == {"tool_calls": None}


PAIRS = [("low", "low"), ("low", "low"), ("high", "low"), ("high", "high"), ("low", "high"), ("other", "info")]


def test_f1_micro_by_hand() -> None:
    """TP 3, FP 3, FN 3; without the answer that is no class FP 2."""
    assert f1_micro(PAIRS) == 0.5
    assert f1_micro([*PAIRS[:-1], (None, "info")]) == pytest.approx(6 / 11)
    assert f1_micro([]) is None
    found = scores([FieldMetric("severity", "f1_micro")], answers("low", "high"), answers("low", "low"))
    assert found == {"severity.f1_micro": 0.5}


def test_each_class_by_hand() -> None:
    found = by_class(PAIRS)
    assert list(found) == ["low", "high", "info"]
    assert found["low"] == {
        "rows": 3,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
    }
    assert found["high"] == {"rows": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert found["info"] == {"rows": 1, "precision": None, "recall": 0.0, "f1": 0.0}
    assert f1_macro(PAIRS) == pytest.approx(sum(each["f1"] or 0 for each in found.values()) / 3)


def test_classes_stand_beside_an_f1_alone() -> None:
    metrics = ["json_valid", FieldMetric("a", "accuracy"), FieldMetric("b", "f1_macro"), FieldMetric("b", "f1_micro")]
    row = ['{"a": 1, "b": 2}']
    assert classes(metrics, row, row) == {"b": {"2": {"rows": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0}}}
