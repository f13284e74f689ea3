"""`sysml-run data`: what is shown is what is trained on, and nothing of it stays but what was asked for."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sysml_run import verification

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(project: Path, env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The rows as files, and what --format json printed."""
    out = tmp_path_factory.mktemp("exported") / "rows"
    done = data(project, env, "--show", "2", "--tokens", "--out", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def data(project: Path, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sysml_run.cli", "data", "tiny.yaml", *arguments]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)


def test_json_has_the_report_and_the_rows(exported: tuple[Path, Any]) -> None:
    _, found = exported
    assert {"rows", "files", "splits", "duplicates", "leakage", "balance", "shown"} <= set(found)
    assert found["rows"] == {"read": 32, "kept": 32, "dropped": {}}
    for row in found["shown"]:
        assert row["tokens"] == len(row["each"])
        assert row["loss_tokens"] == sum(token["trained"] for token in row["each"])
        (trained,) = [piece["text"] for piece in row["pieces"] if piece["trained"]]
        assert json.loads(trained.removesuffix("<|im_end|>"))["severity"] in ("calm", "odd", "grave")


def test_what_is_shown_is_what_the_files_hold(exported: tuple[Path, Any]) -> None:
    out, found = exported
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert len(rows) == found["splits"]["train"]["rows"]
    for row, shown in zip(rows, found["shown"], strict=False):
        assert row["id"] == shown["id"]
        assert row["input_ids"] == [token["id"] for token in shown["each"]]
        assert [label != -100 for label in row["labels"]] == [token["trained"] for token in shown["each"]]
        assert "".join(piece["text"] for piece in shown["pieces"]) == row["prompt"] + row["completion"] + "<|im_end|>"


def test_the_manifest_knows_every_file(exported: tuple[Path, Any]) -> None:
    out, _ = exported
    assert verification.verify(out) == []
    (out / "validation.jsonl").write_text("changed\n")
    assert verification.verify(out) != []


def test_text_marks_what_counts(project: Path, env: Mapping[str, str]) -> None:
    done = data(project, env, "--show", "1", "--hardware", "cpu")
    assert done.returncode == 0, done.stderr
    assert "prepare: 32 rows read, 32 kept" in done.stdout
    assert "tokens p50" in done.stdout
    assert "  template: tokenizer, that of tiny:llama\n" in done.stdout
    assert "cache hit" in done.stderr
    assert done.stdout.count('《{"severity":') == 1
    assert not (project / "runs").exists() or not any("data" in path.name for path in (project / "runs").iterdir())


def test_the_report_is_printed_once_and_a_failure_names_no_log_that_is_gone(
    project: Path, env: Mapping[str, str]
) -> None:
    done = data(project, env, "--set", "seed=7")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("32 rows read") == 1
    failed = data(project, env, "--set", "datasets.0.type=alpaca")
    assert failed.returncode == 1
    assert "is row rows.jsonl:0, which has the fields prompt, completion" in failed.stderr
    assert "log:" not in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_folder_with_other_things_is_left_alone(project: Path, env: Mapping[str, str]) -> None:
    done = data(project, env, "--out", ".")
    assert done.returncode == 2
    assert "--out cannot be written" in done.stderr
