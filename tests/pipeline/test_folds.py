"""Cross-validation through the real command: killed in its second fold, gone on with, and what is left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import RECIPE, Run, read

FOLDS = 3
ALL = RECIPE.replace("split: {validation: 0.25}", "split: {test: 4}\n").replace("max_steps: 8", "max_steps: 4")
ALL = ALL.replace("  every_steps: 4\n", f"  every_steps: 4\n  cross_validation: {{folds: {FOLDS}}}\n")
COMMAND = (sys.executable, "-m", "sysml_run.cli", "folds.yaml", "--runs", "runs-folds")


def kill(project: Path, env: Mapping[str, str]) -> Path:
    """Start it and, once the second fold is prepared, kill every process; the folder of the whole."""
    import psutil

    process = subprocess.Popen(COMMAND, cwd=project, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 600
    while not list(project.glob("runs-folds/tiny/*/fold-2/records/prepare.json")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    own = psutil.Process(process.pid)
    for each in [own, *own.children(recursive=True)]:
        each.kill()
    process.wait()
    (whole,) = (project / "runs-folds/tiny").iterdir()
    return whole


@pytest.fixture(scope="module")
def crossed(project: Path, env: Mapping[str, str], sysml_run: Run) -> tuple[Path, str]:
    """The folder of all folds, and what was printed when the killed one went on."""
    (project / "folds.yaml").write_text(ALL)
    whole = kill(project, env)
    first = (whole / "fold-1/records/train.json").read_bytes()
    assert not (whole / "cross_validation.json").exists()
    said = sysml_run("folds.yaml", "--runs", "runs-folds", "--resume").stdout
    assert (whole / "fold-1/records/train.json").read_bytes() == first
    return whole, said


def ids(run: Path, side: str) -> list[str]:
    import datasets

    return list(datasets.load_from_disk(str(Path(read(run / "data/prepared.json")["path"]) / side))["id"])


def test_it_goes_on_with_the_fold_it_was_in(crossed: tuple[Path, str], project: Path) -> None:
    whole, said = crossed
    assert "going on with" in said
    assert said.count("train: done before") == 1
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]
    assert read(whole / "status.json")["state"] == "done"
    assert [read(whole / f"fold-{at}/status.json")["state"] for at in range(1, FOLDS + 1)] == ["done"] * FOLDS


def test_every_row_is_validated_once_and_none_is_trained_on_there(crossed: tuple[Path, str]) -> None:
    folds = [crossed[0] / f"fold-{at}" for at in range(1, FOLDS + 1)]
    validated = [row for fold in folds for row in ids(fold, "validation")]
    test = ids(folds[0], "test")
    assert len(validated) == len(set(validated)) == 28
    assert len(test) == 4
    assert len(set(validated) | set(test)) == 32
    for fold in folds:
        assert ids(fold, "test") == test
        assert not set(ids(fold, "train")) & {*ids(fold, "validation"), *test}
        assert len(ids(fold, "train")) + len(ids(fold, "validation")) == 28


def test_the_summary_is_of_the_folds_own_figures(crossed: tuple[Path, str]) -> None:
    whole, said = crossed
    found = read(whole / "cross_validation.json")
    each: list[dict[str, Any]] = [read(whole / f"fold-{at}/evaluation.json") for at in range(1, FOLDS + 1)]
    assert found["rows"] == 28
    assert found["after"]["loss"]["values"] == [one["after"]["loss"] for one in each]
    assert found["after"]["loss"]["mean"] == pytest.approx(sum(one["after"]["loss"] for one in each) / FOLDS)
    assert found["test"]["after"]["loss"]["values"] == [one["test"]["after"]["loss"] for one in each]
    assert all(one["test"]["rows"] == 4 for one in each)
    assert "Means of 3 folds, which validated 28 rows" in said
    assert "test loss" in said


def test_a_fold_is_measured_and_makes_no_package(crossed: tuple[Path, str]) -> None:
    fold = crossed[0] / "fold-2"
    assert {path.stem for path in (fold / "records").iterdir()} == {"prepare", "train", "evaluate", "report"}
    assert "Test rows" in (fold / "report.html").read_text()
    sources = read(fold / "recipe.json")["sources"]
    assert sources["evaluation.cross_validation.fold"] == "fold 2 of 3"


def test_the_whole_is_reported_as_a_run(crossed: tuple[Path, str], sysml_run: Run) -> None:
    assert "Means of 3 folds" in sysml_run("report", str(crossed[0])).stdout
    value = json.loads(sysml_run("report", str(crossed[0]), "--format", "json").stdout)
    assert value["runs"][0]["state"] == "done"
    assert value["runs"][0]["cross_validation"] == read(crossed[0] / "cross_validation.json")
    refused = sysml_run("package", str(crossed[0]), "--out", "packed", code=2)
    assert "start a new run without evaluation.cross_validation" in refused.stderr


def test_a_plan_that_is_written_is_of_one_fold(crossed: tuple[Path, str], sysml_run: Run, project: Path) -> None:
    refused = sysml_run("plan", "folds.yaml", "--write", "written", code=2)
    assert "--set evaluation.cross_validation.fold=1" in refused.stderr
    told = ("--set", "evaluation.cross_validation.fold=2")
    sysml_run("plan", "folds.yaml", "--write", "written", *told)
    assert read(project / "written/recipe.json")["values"]["evaluation"]["cross_validation"] == {"folds": 3, "fold": 2}
