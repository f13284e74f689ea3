"""Datasets of which rows are lost: which, why, and what was there instead of what was wanted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import datasummary
from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare

Make = Callable[..., Recipe]
BOTH = {"prompt": "{{ prompt }}", "completion": "{{ completion }}"}


def lines(path: Path, rows: list[Any], kind: str = "prompt_completion", **more: Any) -> dict[str, Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "type": kind, **more}


def pairs(count: int, word: str = "What") -> list[dict[str, str]]:
    return [{"prompt": f"{word} is {i}?", "completion": f"It is {i}."} for i in range(count)]


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    prepare.run(recipe, rundir)
    report: dict[str, Any] = read_json(rundir.data / "report.json")
    for each in report["datasets"]:
        assert each["read"] == each["kept"] + sum(each["dropped"].values())
    assert report["rows"]["kept"] == sum(each["kept"] for each in report["datasets"])
    return report


ALPACA = [{"title": "t", "text": "x"}] * 20
WRONG = {
    "fields": (
        ALPACA,
        "alpaca",
        "not_a_row 20",
        "line 1: not a row: found the fields title, text, wanted an object with",
    ),
    "messages": (
        [{"messages": [{"role": "user"}], "id": 3}] * 20,
        "messages",
        "bad_messages 20",
        "the first with bad_messages is row b.jsonl:0, which has the fields messages, id",
    ),
    "answers": (
        [{"prompt": "a", "completion": " "}] * 20,
        "prompt_completion",
        "empty_answer 20",
        "the first with empty_answer is row b.jsonl:0, which has the fields prompt, completion",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_dataset_without_a_row_stops_the_run(make_recipe: Make, rundir: RunDir, tmp_path: Path, name: str) -> None:
    """However many rows the other one has."""
    rows, kind, reasons, words = WRONG[name]
    data = [lines(tmp_path / "a.jsonl", pairs(90)), lines(tmp_path / "b.jsonl", rows, kind)]
    with pytest.raises(DataError, match=rf"datasets\.1: none of 20 rows can be used: {reasons}") as caught:
        run(make_recipe(datasets=data), rundir)
    assert f"type {kind} wants" in str(caught.value.hint)
    assert name == "fields" or words in str(caught.value.hint)
    assert not rundir.data.exists()


def test_lines_of_another_shape_are_told_with_their_fields(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    rows, _, _, words = WRONG["fields"]
    data = [
        lines(tmp_path / "b.jsonl", [*rows[:3], *({"instruction": f"{i}", "output": "o"} for i in range(9))], "alpaca")
    ]
    report = run(make_recipe(datasets=data), rundir)
    printed = "\n".join(datasummary.lines(report))
    assert words in f"line 1: {report['files'][0]['bad_lines'][0][1]}"
    assert f"passed over b.jsonl: {words} instruction and output" in printed
    assert report["datasets"][0]["dropped"] == {"not_a_row": 3}
    assert report["datasets"][0]["first"] == {"not_a_row": "b.jsonl:0, which has the fields title, text"}


def test_rows_of_another_shape_in_a_list(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    rows = [
        *({"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "b"}]} for i in range(9))
    ]
    (tmp_path / "a.json").write_text(json.dumps([*rows, "text", {"conversation": []}, 7, None, [1, 2], True, {}]))
    report = run(make_recipe(datasets=[{"path": str(tmp_path / "a.json"), "type": "messages"}]), rundir)
    assert report["rows"]["dropped"] == {"not_a_row": 7}
    assert report["datasets"][0]["first"] == {"not_a_row": "a.json:9, which has text"}
    printed = list(datasummary.lines(report))
    assert "  datasets.0: not_a_row: the first is row a.json:9, which has text" in printed
    assert "  datasets.0: type messages wants an object with messages, a list of {role, content}" in "\n".join(printed)


def test_a_file_of_another_shape_is_told_with_its_fields(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "samples": []}))
    with pytest.raises(DataError, match=r"a\.json holds no rows of type alpaca") as caught:
        run(make_recipe(datasets=[{"path": str(tmp_path / "a.json"), "type": "alpaca"}]), rundir)
    assert "looked in: a.json, which has the fields version, samples" in str(caught.value.hint)


def test_rows_that_no_tokens_are_made_of(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    """They are found in the second pass, where all datasets go through together."""
    long = [{"prompt": "a", "completion": "word " * 200} for _ in range(20)]
    data = [lines(tmp_path / "a.jsonl", pairs(90)), lines(tmp_path / "b.jsonl", long)]
    with pytest.raises(DataError, match=r"datasets\.1: none of 20 rows is left: not to be tokenized 20") as caught:
        run(make_recipe(datasets=data, prompt={"sequence_len": 64}), rundir)
    assert "(answer_too_long 20 in all)" in caught.value.message
    template = "{% if messages[0].content == 'a' %}{{ raise_exception('no a') }}{% endif %}{% for m in messages %}"
    template += "{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"template_error 20 in all\); the first refused: .*no a"):
        run(make_recipe(datasets=data, prompt={"sequence_len": 512, "template": template}), rundir)


def test_a_dataset_that_repeats_another_with_one_bad_row(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    again = [*pairs(9), {"prompt": "a", "completion": None}]
    data = [lines(tmp_path / "a.jsonl", pairs(90)), lines(tmp_path / "b.jsonl", again)]
    report = run(make_recipe(datasets=data, split={"dedupe": "exact", "validation": 0.1}), rundir)
    assert report["datasets"][1]["dropped"] == {"null_field": 1, "duplicate": 9}


def test_most_rows_of_a_dataset_lost_is_a_warning(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    mixed = [*pairs(8, "Who"), *({"prompt": "a", "completion": None} for _ in range(12))]
    data = [lines(tmp_path / "a.jsonl", pairs(90)), lines(tmp_path / "b.jsonl", mixed)]
    report = run(make_recipe(datasets=data), rundir)
    assert "datasets.1: only 8 rows are left of 20: null_field 12" in report["warnings"]
    printed = list(datasummary.lines(report))
    assert "  datasets.0 (prompt_completion): 90 rows read, 90 kept" in printed
    assert "  datasets.1 (prompt_completion): 20 rows read, 8 kept; left out: null_field 12" in printed
    assert "  datasets.1: null_field: the first is row b.jsonl:8, which has the fields prompt, completion" in printed


@pytest.mark.parametrize(
    ("split", "more", "reason"),
    [({"dedupe": "exact"}, {}, "duplicate 20"), ({}, {"weight": 1e-9}, "drawn 20")],
)
def test_a_dataset_that_the_recipe_leaves_out_is_a_warning(
    make_recipe: Make, rundir: RunDir, tmp_path: Path, split: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    data = [lines(tmp_path / "a.jsonl", pairs(90)), lines(tmp_path / "b.jsonl", pairs(20), use_as="train", **more)]
    report = run(make_recipe(datasets=data, split={"validation": 0.2, **split}), rundir)
    assert f"datasets.1: no row is left of 20: {reason}" in report["warnings"]
    assert [each["kept"] for each in report["datasets"]] == [90, 0]


def test_where_and_max_rows_are_counted_for_their_dataset(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    data = [
        lines(tmp_path / "a.jsonl", pairs(40), where="prompt != 'What is 3?'", max_rows=10),
        lines(tmp_path / "b.jsonl", pairs(20, "Who")),
    ]
    report = run(make_recipe(datasets=data), rundir)
    assert [each["dropped"] for each in report["datasets"]] == [{"max_rows": 29, "where": 1}, {}]
    assert not any("datasets." in warning for warning in report["warnings"])
