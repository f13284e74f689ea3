"""`report`: one run as it ended, several side by side, as text and as data."""

import json
from pathlib import Path

import pytest

from sysml_run import cli
from sysml_run.rundir import RunDir, read_json, write_json, write_text

from . import finished_package


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_package.make(tmp_path / "one")
    two = finished_package.make(tmp_path / "two")
    write_json(two.evaluation, {"rows": 8, "before": {"loss": 2.0}, "after": {"loss": 0.5, "json_valid": 1.0}})
    write_json(two / "status.json", {"state": "failed", "stage": "report"})
    write_text(two / "report.html", "<p>")
    bare = finished_package.make(tmp_path / "bare")
    bare.evaluation.unlink()
    monkeypatch.chdir(tmp_path)


def test_one_run_as_it_ended(capsys) -> None:
    assert cli.main(["report", "one"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("severity: own/base, one\n\n                 before  after   change\n")
    assert shown.endswith("package 1.5 s; 1.5 s in all\nstate  done\n")


def test_several_side_by_side(capsys) -> None:
    assert cli.main(["report", "one", "two", "bare"]) == 0
    assert capsys.readouterr().out.split("\n\n")[0].splitlines() == [
        "after training   one    two      bare",
        "validation loss  0.250  0.500    -",
        "valid JSON       -      100.0 %  -",
    ]


def test_as_data(capsys) -> None:
    assert cli.main(["report", "two", "bare", "--format", "json"]) == 0
    two, bare = json.loads(capsys.readouterr().out)["runs"]
    assert (two["name"], two["state"], Path(two["report"]).name) == ("severity", "failed", "report.html")
    assert two["evaluation"]["after"]["loss"] == 0.5
    assert two["stages"]["package"]["seconds"] == 1.5
    assert (bare["evaluation"], bare["report"], bare["memory"]) == (None, None, None)


def test_memory_as_predicted_and_as_measured(capsys) -> None:
    run = RunDir(Path("one").absolute())
    values = read_json(run.recipe)["values"]
    more = {"hardware": {"accelerator": "cpu"}, "prompt": {"sequence_len": 512, "padding": "dynamic"}}
    write_json(run.recipe, {"values": values | more, "sources": {}})
    memory = {"predicted": {"total": 2 * 10**9}, "measured": {"process": 21 * 10**8}, "longest_row": 512}
    write_json(run.record("train"), {"started": "2026-11-20T10:01:00+00:00", "memory": memory})
    assert cli.main(["report", "one"]) == 0
    words = "2.10 GB of one process, predicted 2.00 GB (1.05 times as much)"
    assert f"\n\nmemory at the peak of training: {words}\npackage 1.5 s" in capsys.readouterr().out
    assert cli.main(["report", "one", "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert found["memory"] == {"predicted": 2 * 10**9, "measured": 21 * 10**8, "ratio": 1.05}


@pytest.mark.parametrize("name", ["recipe.json", "evaluation.json", "records/package.json"])
def test_a_torn_file_is_no_fault_of_ours(capsys, name: str) -> None:
    Path("one", name).write_text('{"values": {"na')
    assert cli.main(["report", "one"]) == 2
    assert capsys.readouterr().err == ("error: one has a recipe.json, evaluation.json or record that cannot be read\n")


def test_what_is_no_run(capsys) -> None:
    assert cli.main(["report", "nowhere"]) == 2
    assert "nowhere is not a run directory" in capsys.readouterr().err
