"""The figures of several folds put together."""

from __future__ import annotations

import pytest

from sysml_run import crossval, document
from sysml_run.resolve import resolve

MINIMAL = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 1}
evaluation: {cross_validation: null}
"""


@pytest.mark.parametrize(("told", "runs"), [("null", 1), ("{folds: 4}", 4), ("{folds: 4, fold: 2}", 1)])
def test_how_many_runs_a_recipe_is(told: str, runs: int) -> None:
    read = document.parse(MINIMAL.replace("null", told), "one.yaml")
    assert crossval.runs(resolve(read).recipe) == runs


def evaluated(loss: float, share: float | None, test: float | None = None) -> dict:
    found = {"rows": 4, "before": {"loss": 9.0}, "after": {"loss": loss, "json_valid": share}}
    return found | ({"test": {"rows": 2, "before": {"loss": 8.0}, "after": {"loss": test}}} if test else {})


def test_mean_and_standard_deviation_by_hand() -> None:
    found = crossval.gather([evaluated(1.0, 0.5), evaluated(2.0, None), evaluated(3.0, 1.0)])
    assert (found["folds"], found["rows"], found["runs"]) == (3, 12, ["fold-1", "fold-2", "fold-3"])
    assert found["before"]["loss"] == {"mean": 9.0, "std": 0.0, "values": [9.0, 9.0, 9.0]}
    assert found["after"]["loss"] == {"mean": 2.0, "std": 1.0, "values": [1.0, 2.0, 3.0]}
    share = found["after"]["json_valid"]
    assert (share["mean"], share["values"]) == (0.75, [0.5, None, 1.0])
    assert share["std"] == pytest.approx(0.35355339)
    assert "test" not in found


def test_figures_that_no_fold_or_one_fold_has() -> None:
    found = crossval.gather([evaluated(1.0, None), evaluated(1.0, None)])["after"]["json_valid"]
    assert found == {"mean": None, "std": None, "values": [None, None]}
    found = crossval.gather([evaluated(1.0, 0.5), evaluated(1.0, None)])["after"]["json_valid"]
    assert found == {"mean": 0.5, "std": None, "values": [0.5, None]}


def test_test_rows_stand_beside_them_and_means_read_as_an_evaluation() -> None:
    found = crossval.gather([evaluated(1.0, 0.5, 4.0), evaluated(2.0, 0.5, 6.0)])
    assert found["test"]["after"]["loss"]["mean"] == 5.0
    assert crossval.means(found) == {
        "before": {"loss": 9.0},
        "after": {"loss": 1.5, "json_valid": 0.5},
        "test": {"before": {"loss": 8.0}, "after": {"loss": 5.0}},
    }
