"""The README's first command, as a stranger runs it: the small model really learns the task."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")]


@pytest.fixture(scope="module")
def run() -> tuple[Path, str]:
    """The run directory of `make quickstart`, and what was printed."""
    if not (ROOT / ".venv/.ready").is_file():
        pytest.skip("tests were not started by `make test`; `make quickstart` would build a second environment")
    started = time.time()
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["make", "quickstart"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    newest = max((ROOT / "runs/quickstart").iterdir())
    assert newest.stat().st_mtime >= started - 1
    return newest, done.stdout


def test_it_learns(run: tuple[Path, str]) -> None:
    evaluation: dict[str, Any] = json.loads((run[0] / "evaluation.json").read_text())
    before, after = evaluation["before"], evaluation["after"]
    assert after["loss"] <= 0.2 * before["loss"]
    assert after["json_valid"] >= 0.98
    assert after["severity.accuracy"] >= 0.75 > 0.5 >= after["severity.majority"]
    assert after["severity.accuracy"] > before["severity.accuracy"]
    assert after["risk_score.mae"] < 15
    assert evaluation["merged"]["max_logit_difference"] <= evaluation["merged"]["tolerance"]


def test_rows_that_differ_only_in_numbers_are_on_one_side(run: tuple[Path, str]) -> None:
    report = json.loads((run[0] / "data/report.json").read_text())
    assert report["leakage"]["validation"]["masked"] == 0


def test_the_table_is_printed(run: tuple[Path, str]) -> None:
    for words in ("validation loss", "valid JSON", "severity accuracy", "always the commonest answer", "package"):
        assert words in run[1]
