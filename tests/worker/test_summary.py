"""Before and after in words: formats, directions, cautions; and the table at the end of a run, whatever it has."""

from pathlib import Path

import pytest

from sysml_run import crossval
from sysml_run.measures import MINUS, Measure, duration, measures, sample, signed
from sysml_run.rundir import RunDir, read_json, write_json
from sysml_run.summary import summary

from . import finished_run

TABLE = """\
                       before    after         change
validation loss         1.774    0.113        -93.6 %
valid JSON              0.0 %  100.0 %  +100.0 points
severity accuracy       0.0 %   81.2 %   +81.2 points  always the commonest answer: 46.5 %
severity F1, macro      0.000    0.744         +0.744
risk_score mean error       -     6.03
Loss on 86 validation rows; answers on 32 of them, so one answer is 3.1 points.
"""


def test_the_whole_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, rundir = finished_run.make(tmp_path)
    rundir.model.mkdir()
    write_json(rundir.record("package"), {"started": "2026-11-20T10:06", "seconds": 0.42, "published": "/srv/models/x"})
    text = summary(rundir)
    assert text.startswith("quickstart: tiny:llama, run\n\n")
    assert TABLE in text
    assert "model       run/model\nevaluation  run/evaluation.json\npublished   /srv/models/x\n" in text
    times = "prepare 3.2 s, train 2 min 31 s, evaluate 39 s, merge 11 s, package 0.4 s; 3 min 25 s in all"
    assert text.endswith(times)
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_test_rows_have_a_table_of_their_own(tmp_path: Path) -> None:
    _, rundir = finished_run.make(tmp_path)
    part = {"rows": 9, "generated": 0, "before": {"loss": 2.0}, "after": {"loss": 1.0}}
    write_json(rundir.evaluation, read_json(rundir.evaluation) | {"test": part})
    text = summary(rundir)
    assert TABLE in text
    assert "test loss   2.000  1.000  -50.0 %\nLoss on 9 test rows; no answers were generated.\n" in text


def test_means_of_folds(tmp_path: Path) -> None:
    _, rundir = finished_run.make(tmp_path)
    rundir.evaluation.unlink()
    one = {"rows": 4, "before": {"loss": 4.0}, "after": {"loss": 1.0, "json_valid": 0.5, "rouge_l": None}}
    other = {"rows": 5, "before": {"loss": 4.0}, "after": {"loss": 3.0, "json_valid": 1.0, "rouge_l": None}}
    write_json(rundir / crossval.NAME, crossval.gather([one, other]))
    shown = """\
                 before   after     +/-   change
validation loss   4.000   2.000   1.414  -50.0 %
valid JSON            -  75.0 %  35.4 %
ROUGE-L               -       -       -

Means of 2 folds, which validated 9 rows; +/- is one standard deviation.
Without evaluation.cross_validation the same recipe makes the model.
"""
    assert shown in summary(rundir)


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    write_json(rundir.recipe, {"values": {"name": "x", "model": {"base_model": "y"}}, "sources": {}})
    assert summary(rundir) == f"x: y, {tmp_path}"
    write_json(rundir.evaluation, {"rows": 0, "generated": 0, "before": {}, "after": {}})
    assert "before" not in summary(rundir)


def test_what_got_worse_is_said(tmp_path: Path) -> None:
    _, rundir = finished_run.make(tmp_path)
    found = read_json(rundir.evaluation)
    found["after"] |= {"loss": 2.0, "severity.accuracy": 0.4}
    write_json(rundir.evaluation, found)
    lines = summary(rundir).splitlines()
    assert lines[3].endswith("+12.7 %  worse")
    assert lines[5].endswith("always the commonest answer: 46.5 %, which is not beaten")


@pytest.mark.parametrize(
    ("kind", "before", "after", "verdict", "change"),
    [
        ("share", 0.5, 0.75, "better", "+25.0 points"),
        ("share", 0.75, 0.5, "worse", "-25.0 points"),
        ("share", 0.5, 0.5001, "same", "0.0 points"),
        ("loss", 2.0, 1.0, "better", "-50.0 %"),
        ("loss", 0.0, 1.0, "worse", ""),
        ("score", 0.1, 0.2, "better", "+0.100"),
        ("error", 3.0, 1.5, "better", "-1.50"),
        ("error", None, 1.5, "", ""),
        ("loss", 2.0, float("nan"), "worse", ""),
        ("number", 1.0, 2.0, "", "+1.000"),
    ],
)
def test_directions(kind: str, before: float | None, after: float, verdict: str, change: str) -> None:
    measure = Measure("x", "x", kind, before, after)  # type: ignore[arg-type]
    assert (measure.verdict, measure.change.replace(MINUS, "-")) == (verdict, change)


def test_names() -> None:
    after = {"loss": 1.0, "exact_match": 0.5, "a.b.accuracy": 0.5, "a.b.majority": 0.25, "perplexity": 3.0}
    found = measures({"before": None, "after": after})
    assert [measure.label for measure in found] == ["validation loss", "exact answers", "a.b accuracy", "perplexity"]
    assert found[2].majority == 0.25
    assert found[3].shown(3.0) == "3.000"
    assert Measure("x", "x", "share", 0.0, None, 0.5).caution == "always the commonest answer: 50.0 %"


def test_what_the_numbers_rest_on() -> None:
    assert sample({}) == ""
    assert sample({"rows": 1234, "generated": 0}) == "Loss on 1,234 validation rows; no answers were generated."
    assert sample({"rows": 50, "generated": 50}).endswith("answers on 50 of them, so one answer is 2.0 points.")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (171, "2 min 51 s"),
        (11105, "3 h 5 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_nothing_has_no_sign() -> None:
    assert [signed(value, 1) for value in (-0.01, 0.0, 0.04, -1.0, 1.0)] == ["0.0", "0.0", "0.0", f"{MINUS}1.0", "+1.0"]
