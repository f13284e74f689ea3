"""What a run asks of its machine before it starts: room on disk and in memory, a warning where training is tight."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from sysml_run import cli, document, overrides, plan
from sysml_run.commands import folds, run
from sysml_run.errors import StageError, UsageError
from sysml_run.machine import Machine
from sysml_run.resolve import Resolved, resolve
from sysml_run.rundir import read_json, write_json

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: "mistralai/Mixtral-8x7B-Instruct-v0.1"}
datasets: [{path: rows.jsonl, type: messages}]
lora: {target_modules: attention}
optimizer: {name: adamw, learning_rate: 2e-4}
training: {num_epochs: 1}
quantization: {export: [{method: gptq, bits: 8, group_size: 64}]}
"""


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(run.doctor, "free", lambda folder: 1000)


def made(*changes: str) -> Resolved:
    return resolve(overrides.apply(document.parse(RECIPE, "r.yaml"), changes))


def options(folder: Path, **more: object) -> Namespace:
    return Namespace(**{"runs": folder, "only": [], "until": None, "resume": None} | more)


def test_only_what_is_asked_for_needs_room(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes 378\.6 GB on disk \(checkpoints 0\.5 GB, .* 0\.0 GB are free"):
        run.roomy(made(), options(tmp_path))
    with pytest.raises(UsageError, match=r"takes 97\.8 GB on disk \(quantized 97\.8 GB\)"):
        run.roomy(made(), options(tmp_path, resume="newest", only=["quantize"]))
    run.roomy(made(), options(tmp_path, until="prepare"))
    run.roomy(made(), options(tmp_path, only=["evaluate", "report"]))
    run.roomy(made(), options(tmp_path, until="prepare", only=["nothing"]))


def test_a_run_that_was_stopped_has_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "20260101-000000-abcd"
    write_json(folder / "recipe.json", {})
    write_json(folder / "status.json", {"state": "failed"})
    with pytest.raises(UsageError, match="checkpoints"):
        run.roomy(made("quantization.export=[]"), options(tmp_path))
    write_json(folder / "status.json", {"state": "interrupted"})
    with pytest.raises(UsageError, match=r"merge takes 186\.8 GB of memory"):
        run.roomy(made("quantization.export=[]"), options(tmp_path))


def test_memory_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.doctor, "free", lambda folder: 10**13)
    with pytest.raises(UsageError, match=r"merge takes 186\.8 GB of memory, this machine has") as error:
        run.roomy(made("quantization.export=[]"), options(tmp_path))
    assert "--only merge --resume RUN" in str(error.value.hint)
    offloaded = "hardware={accelerator: gpu, zero_stage: 3, offload: {parameters: cpu}}"
    with pytest.raises(UsageError, match=r"what is offloaded takes 93\.\d GB of memory, this machine has"):
        run.roomy(made(offloaded), options(tmp_path, only=["train"]))
    run.roomy(made("model.base_model=nobody/knows"), options(tmp_path))


def test_the_hubs_cache_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "/proc/hub")
    with pytest.raises(UsageError, match=r"the model takes 93\.4 GB in the hub's cache"):
        run.roomy(made(), options(tmp_path, only=["train"]))


def test_what_is_published_beside_the_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="published 1"):
        run.roomy(made(f"artifacts.dir={tmp_path}/models"), options(tmp_path))


def test_a_warning_where_training_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """And the run goes on: the estimate has a band."""
    large = made("hardware={accelerator: gpu, type: l4-24gb}", "training.gradient_checkpointing=true")
    run.fitting(plan.make(large, HERE, "/runs/1"), "one.yaml")
    said = capsys.readouterr().err
    assert said.startswith("warning: does not fit: ")
    assert said.endswith("on each device\n  sysml-run plan one.yaml --fit says what would\n")
    run.fitting(plan.make(made("model.base_model=tiny:llama"), HERE, "/runs/1"), "one.yaml")
    run.fitting(plan.make(made("model.base_model=nobody/knows"), HERE, "/runs/1"), "one.yaml")
    assert capsys.readouterr().err == ""


def test_folds_are_looked_at_as_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first of them starts, which fails here for want of a model."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "r.yaml").write_text(RECIPE)
    changed = overrides.apply(document.load(tmp_path / "r.yaml"), ["evaluation.cross_validation={folds: 3}"])
    large = overrides.apply(changed, ["hardware={accelerator: gpu, type: l4-24gb}", "quantization.export=[]"])
    with pytest.raises(UsageError, match="evaluate wants a run that has trained"):
        folds.run(large, resolve(large), options(tmp_path, only=["evaluate"], offline=True), None)
    assert not (tmp_path / "one").exists()
    with pytest.raises(StageError):
        folds.run(large, resolve(large), options(tmp_path, offline=True), None)
    said = capsys.readouterr()
    assert said.err.startswith("warning: does not fit: ")
    assert "stages prepare, train, evaluate, report, for each of 3 folds" in said.out
    (whole,) = (tmp_path / "one").iterdir()
    assert read_json(whole / "status.json")["state"] == "failed"
    assert read_json(whole / "status.json")["stage"] == "fold-1"


def test_fit_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows and a model that are elsewhere are no error of a plan that is only looked at."""
    import json

    (tmp_path / "one.yaml").write_text(RECIPE)
    arguments = ["plan", str(tmp_path / "one.yaml"), "--fit", "--set", "quantization.export=[]"]
    assert cli.main([*arguments, "--hardware", "gpu:8xh100-80gb"]) == 0
    shown = capsys.readouterr()
    assert "warning: datasets.0.path: there is nothing at" in shown.err
    assert "what makes it fit, the cheapest in speed first" in shown.out
    assert "type  --set " in shown.out
    assert "\nenv " not in shown.out
    assert cli.main([*arguments, "--hardware", "gpu:8xh100-80gb", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fit"]["enough"]
    assert found["fit"]["set"]
    assert found["memory"]["fits"] is False
    assert cli.main([*arguments, "--hardware", "gpu:8"]) == 0
    assert "what would fit is not known: hardware.type does not say how much memory" in capsys.readouterr().out
    assert cli.main([*arguments, "--set", "model.base_model=nobody/knows", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["fit"] is None
    assert cli.main([*arguments, "--set", "model.base_model=nobody/knows"]) == 0
    assert "what would fit is not known: the model's sizes" in capsys.readouterr().out
    assert cli.main([*arguments, "--write", str(tmp_path / "out")]) == 2
    assert "--fit looks for another recipe" in capsys.readouterr().err
    assert cli.main([*arguments[:2], "--write", str(tmp_path / "out")]) == 2
    assert "datasets.0.path: there is nothing at" in capsys.readouterr().err
