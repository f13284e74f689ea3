"""One recipe on several machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sysml_run import cli, compare, document, overrides
from sysml_run.machine import Machine
from sysml_run.resolve import resolve

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: mistralai/Mixtral-8x7B-Instruct-v0.1}
datasets: [{path: rows.jsonl, type: messages}]
lora: {target_modules: attention}
quantization: {load: nf4}
optimizer: {name: adamw, learning_rate: 1e-5}
training: {max_steps: 100, micro_batch_size: 1, gradient_checkpointing: true}
"""
MACHINES = ("gpu:1xh100-80gb", "gpu:8xa100-40gb", "tpu:v3-8")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(RECIPE)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["plan", "one.yaml", *arguments]) == 0
    return capsys.readouterr().out


def test_a_row_for_each_machine(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--compare", ",".join(MACHINES)).splitlines()
    assert lines[0].split()[-2:] == ["step", "hours"]
    assert [line.split()[0] for line in lines[1:4]] == list(MACHINES)
    assert "does not fit" in lines[1]
    assert " to " in lines[1]
    assert lines[3].split()[1:] == ["-"] * 9 + ["refused", "-", "-"]
    assert lines[-1] == "what would fit on one of them: sysml-run plan RECIPE --hardware H --fit"
    assert lines[5].startswith(
        "tpu:v3-8: quantization.load: nf4 is bitsandbytes', which has nothing for a TPU (remove it"
    )


def test_values(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "--compare", f"{','.join(MACHINES)},gpu,cpu", "--format", "json"))
    assert found["recipe"] == "one.yaml"
    one, eight, tpu, nameless, processor = found["machines"]
    assert one["hardware"] == MACHINES[0]
    assert one["memory"]["verdict"] == "does not fit"
    assert one["memory"]["available_gb"] == pytest.approx(85.521, abs=0.001)
    assert one["time"]["hours"][0] < one["time"]["hours"][1]
    assert (one["rows_per_step"], eight["rows_per_step"]) == (1, 8)
    assert tpu["memory"] is None
    assert tpu["problems"][0]["pointer"] == "quantization.load"
    assert nameless["memory"]["available_gb"] is None
    assert nameless["memory"]["fits"] is None
    assert processor["time"]["hours"] is None
    assert processor["memory"]["verdict"] is not None


def test_a_recipe_that_is_refused_everywhere_is_refused_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "one.yaml", "--compare", "cpu", "--set", "training.max_stepz=1"]) == 2
    assert "max_steps" in capsys.readouterr().err


@pytest.mark.parametrize("hardware", ["gpu:9x9x9", "abacus"])
def test_machines_that_are_none(hardware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "one.yaml", "--compare", hardware]) == 2
    assert "not understood" in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--fit"], ["--write", "x"], ["--target", "slurm"], ["--hardware", "cpu"]])
def test_what_goes_on_from_one_plan(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "one.yaml", "--compare", "cpu", *other]) == 2
    assert "looks at several machines" in capsys.readouterr().err


def test_a_model_that_is_not_known() -> None:
    read = overrides.apply(document.parse(RECIPE, "r.yaml"), ["model.base_model=nobody/knows"])
    found = compare.compared("cpu", resolve(read), HERE, None)
    text = compare.text([found])
    assert text.splitlines()[1].split()[:3] == ["cpu", "1", "-"]
    assert text.splitlines()[-1].startswith("memory is not known: the model's sizes")
    assert compare.values([found])[0]["memory"] is None


def test_a_model_whose_files_are_broken(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `plan` says it of one machine: no machine mends it."""
    (project / "broken").mkdir()
    (project / "broken" / "config.json").write_text("{")
    assert cli.main(["plan", "one.yaml", "--compare", "cpu", "--set", "model.base_model=./broken"]) == 2
    assert "config.json cannot be read" in capsys.readouterr().err


def test_a_card_that_does_not_name_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "--compare", "gpu:1xh100").splitlines()
    assert "not known" in lines[1]
    assert lines[-1].startswith("available memory is not known: hardware.type does not say")


def test_a_problem_without_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    from sysml_run.compare import Compared
    from sysml_run.errors import Problem

    problem = Problem("r.yaml", "a.b", 1, 1, "is wrong")
    assert compare.text([Compared("cpu", (problem,))]).splitlines()[-1] == "cpu: a.b: is wrong"
