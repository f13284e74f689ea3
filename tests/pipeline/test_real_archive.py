"""A short run of the quickstart's own model on real sys-scan findings, where that file is at hand."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT

NAME = "data/sysscan/massive_datasets.tar.gz"
HERE = sorted(ROOT.parent.glob(f"*/{NAME}"))  # in a folder beside the repository
ARCHIVE = Path(os.environ.get("SYSML_RUN_ARCHIVE") or (HERE[0] if HERE else NAME))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ARCHIVE.is_file(), reason="SYSML_RUN_ARCHIVE names no file")]


def test_the_quickstart_runs_to_the_end_on_the_real_archive(project: Path, sysml_run: Any) -> None:
    sysml_run(
        str(ROOT / "recipes/quickstart.yaml"),
        *("--runs", "real", "--set", f"datasets.0.path={ARCHIVE}"),
        *("--set", "training.max_steps=4", "--set", "training.num_epochs=null", "--set", "evaluation.max_rows=8"),
        *("--set", "evaluation.generate.rows=4", "--set", "evaluation.generate.max_new_tokens=8"),
    )
    (run,) = (project / "real/quickstart").iterdir()
    report = json.loads((run / "data/report.json").read_text())
    assert report["rows"]["read"] == 406
    assert report["leakage"]["validation"]["masked"] == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["after"]["loss"] < evaluation["before"]["loss"]
    assert (run / "package/SHA256SUMS").is_file()
