"""Two recipes in one command share one archive, and their runs are compared and handed over together."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sysml_run.rundir import RunDir

from .conftest import Run, read

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
name: {name}
model: {{base_model: "tiny:{model}", dtype: float32}}
datasets:
  - path: rows.tar.gz
    type: prompt_completion
    route: {{when: "prompt | mentions('exploit', 'malware')", take: {take}}}
split: {{validation: 0.25}}
prompt: {{sequence_len: 128}}
{lora}
optimizer: {{name: {optimizer}, learning_rate: 1e-3, lr_scheduler: linear, warmup_steps: 2}}
training: {{max_steps: 6, micro_batch_size: 2, logging_steps: 1}}
evaluation: {{generate: {{rows: 2, max_new_tokens: 4}}, metrics: [json_valid]}}
hardware: {{accelerator: cpu, precision: fp32, threads: 1}}
"""
WORDS = ("an exploit", "an update", "malware", "a reboot")
ROWS = 40


@pytest.fixture(scope="module")
def runs(project: Path, env: Mapping[str, str]) -> dict[str, RunDir]:
    """Finished by one command, which takes as long as two."""
    archive(project / "rows.tar.gz")
    specialist = {"name": "specialist", "model": "llama", "take": "match", "lora": "", "optimizer": "adamw"}
    lora = "lora: {r: 4, alpha: 8, dropout: 0.0, target_modules: attention}"
    generalist = {"name": "generalist", "model": "mixtral", "take": "rest", "lora": lora, "optimizer": "lion"}
    for values in (specialist, generalist):
        (project / f"{values['name']}.yaml").write_text(RECIPE.format(**values))
    command = [sys.executable, "-m", "sysml_run.cli", "specialist.yaml", "generalist.yaml", "--runs", "pair"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: RunDir(next((project / "pair" / name).iterdir())) for name in ("specialist", "generalist")}


def archive(path: Path) -> None:
    asked = (f"host {number} shows {WORDS[number % 4]}" for number in range(ROWS))
    rows = ({"prompt": text, "completion": json.dumps({"severity": "low"})} for text in asked)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with tarfile.open(path, "w:gz") as made:
        info = tarfile.TarInfo("batch.jsonl")
        info.size = len(data)
        made.addfile(info, io.BytesIO(data))


def prompts(run: RunDir) -> Iterator[str]:
    from sysml_run.worker.data import store

    for name in store.SPLITS:
        yield from (row["prompt"] for row in store.load(run).split(name))


def test_every_row_goes_to_one_of_them(runs: dict[str, RunDir]) -> None:
    sides = {name: [*prompts(run)] for name, run in runs.items()}
    assert {name: len(each) for name, each in sides.items()} == {"specialist": ROWS // 2, "generalist": ROWS // 2}
    assert all("exploit" in text or "malware" in text for text in sides["specialist"])
    assert not any("exploit" in text or "malware" in text for text in sides["generalist"])
    for run in runs.values():
        (counted,) = read(run.data / "report.json")["routes"]
        assert (counted["match"], counted["rest"]) == (ROWS // 2, ROWS // 2)


def test_each_trained_as_its_recipe_says(runs: dict[str, RunDir]) -> None:
    facts = {name: read(run.record("train"))["step0"] for name, run in runs.items()}
    assert facts["specialist"]["trainable_parameters"] == facts["specialist"]["total_parameters"]
    assert facts["specialist"]["optimizer"] == "torch.optim.adamw.AdamW"
    norms = 5 * 64  # two of each of two layers, and the last one
    assert facts["specialist"]["trainable_parameters"] - facts["specialist"]["decayed_parameters"] == norms
    assert facts["generalist"]["lora_modules"] == 8
    assert facts["generalist"]["optimizer"] == "bitsandbytes.optim.lion.Lion"


def test_what_is_logged_is_the_schedule(runs: dict[str, RunDir]) -> None:
    """A line of metrics has the rate that its step was made with."""
    for run in runs.values():
        lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        rates = [line["learning_rate"] for line in lines if "loss" in line]
        assert rates == pytest.approx([1e-3 * share for share in (0, 0.5, 1, 0.75, 0.5, 0.25)])


def test_report_sets_them_side_by_side(runs: dict[str, RunDir], sysml_run: Run) -> None:
    paths = [str(run.path) for run in runs.values()]
    first, *_ = sysml_run("report", *paths).stdout.splitlines()
    assert first.split() == ["after", "training", *(run.path.name for run in runs.values())]
    found: Any = json.loads(sysml_run("report", *paths, "--format", "json").stdout)["runs"]
    assert [each["name"] for each in found] == [*runs]
    assert all(each["evaluation"]["after"]["loss"] > 0 for each in found)


def test_package_has_both_and_a_page(runs: dict[str, RunDir], sysml_run: Run, project: Path) -> None:
    sysml_run("package", *(str(run.path) for run in runs.values()), "--out", "models/package")
    folder = project / "models/package"
    page = (folder / "README.md").read_text()
    for name in runs:
        assert (folder / name / "model.safetensors").is_file()
        assert f"{name}" in page
    sysml_run("verify", "models/package")
    (folder / "generalist" / "config.json").write_text("{}")
    assert "generalist/config.json" in sysml_run("verify", "models/package", code=1).stdout
