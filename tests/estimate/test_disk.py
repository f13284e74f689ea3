"""What a run writes, what later stages hold, and when there is too little room for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sysml_run import document, overrides, plan
from sysml_run.estimate import disk
from sysml_run.estimate.disk import Free
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
TEXT = """\
version: 1
name: minimal
model: {base_model: "mistralai/Mixtral-8x7B-Instruct-v0.1"}
datasets: [{path: rows.jsonl, type: messages}]
lora: {r: 16, target_modules: attention}
optimizer: {name: adamw, learning_rate: 2e-4}
training: {num_epochs: 1}
hardware: {accelerator: gpu, devices: 8, zero_stage: null}
quantization: {export: [{method: gguf}, {method: gguf, type: F16}, {method: gptq, bits: 8, group_size: 64}]}
"""
NUMBER = 46.7e9  # of parameters
COPIES = NUMBER * (4.9 + 16 + 8.375) / 8
MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"
STAGES = ("prepare", "train", "evaluate", "merge", "quantize", "package", "report")
PLENTY = Free(10**13, None, 10**12, beside=False)
Make = Callable[..., Recipe]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(disk, "find_spec", lambda name: "found")

    def make(*assignments: str) -> Recipe:
        read = overrides.apply(document.parse(TEXT, "r.yaml"), assignments)
        return plan.settle(resolve(read), HERE).recipe

    return make


def needed(found: Recipe) -> disk.Disk:
    room = disk.needed(found)
    assert room is not None
    return room


def test_a_large_model_with_adapters(recipe: Make) -> None:
    """13.6 million trained numbers in fp32 with two moments, three times; the rest is the model over and over."""
    found = needed(recipe())
    assert found.download == pytest.approx(2 * NUMBER, rel=1e-3)
    assert found.model == pytest.approx(13_631_488 * 4, rel=1e-2)
    assert found.checkpoints == 3 * 12 * 13_631_488
    assert found.merged == pytest.approx(2 * NUMBER, rel=1e-3)
    assert found.quantized == pytest.approx(COPIES, rel=1e-3)
    assert found.package == pytest.approx(2 * NUMBER + COPIES, rel=2e-3)
    assert found.published == found.scratch == 0
    assert found.run == found.checkpoints + found.model + found.merged + found.quantized + found.package


def test_what_makes_it_more(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = needed(recipe("artifacts.dir=/models"))
    assert found.published == found.package
    monkeypatch.setattr(disk, "find_spec", lambda name: None)
    assert needed(recipe()).scratch == pytest.approx(4 * NUMBER, rel=1e-3)
    assert needed(recipe("quantization.export=[{method: gptq}]")).scratch == 0


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        (("training.keep_checkpoints=1",), 2),
        (("training.keep_checkpoints=1", "evaluation.every_steps=5", "evaluation.best={}"), 3),
        (("training.keep_checkpoints=4",), 5),
    ],
)
def test_checkpoints_that_lie_beside_each_other(recipe: Make, changes: tuple[str, ...], number: int) -> None:
    assert needed(recipe(*changes)).checkpoints == number * 12 * 13_631_488


def test_checkpoints_are_whole_however_many_devices_share_the_state(recipe: Make) -> None:
    """DeepSpeed's: 16-bit weights twice, an fp32 copy, and two moments of it."""
    for stage in (1, 2, 3):
        found = needed(recipe(f"hardware.zero_stage={stage}"))
        assert found.checkpoints == pytest.approx(3 * (2 + 2 + 4 + 8) * 13_631_488, rel=1e-3)
    tpu = needed(recipe("hardware={accelerator: tpu, topology: v3-8}"))
    assert tpu.checkpoints == pytest.approx(3 * 12 * 13_631_488, rel=1e-3)
    cpu = needed(recipe("hardware={accelerator: cpu}"))
    assert cpu.checkpoints == 3 * 12 * 13_631_488


def test_a_full_fine_tune_has_nothing_to_merge(recipe: Make) -> None:
    found = needed(recipe("lora=null"))
    assert found.merged == 0
    assert found.model == pytest.approx(2 * NUMBER, rel=1e-3)
    assert found.checkpoints == pytest.approx(3 * 12 * NUMBER, rel=1e-3)
    assert disk.memory(recipe("lora=null")) == {"quantize": pytest.approx(4 * NUMBER, rel=1e-3)}
    assert set(disk.memory(recipe())) == {"merge", "quantize"}
    assert set(disk.memory(recipe("quantization.export=[]"))) == {"merge"}


def test_a_model_at_hand_is_not_downloaded(recipe: Make, tmp_path: Path) -> None:
    folder = tmp_path / "models--mistralai--Mixtral-8x7B-Instruct-v0.1" / "snapshots" / "main"
    folder.mkdir(parents=True)
    assert needed(recipe()).download > 0
    (folder / "model.safetensors").write_text("")
    assert needed(recipe()).download == 0
    assert needed(recipe("model.base_model=tiny:llama")).download == 0


def test_a_teacher_is_downloaded_too(recipe: Make, tmp_path: Path) -> None:
    taught = recipe("model.base_model=mistralai/Mistral-7B-v0.1", f"distillation={{teacher: {MIXTRAL}}}")
    assert disk.teacher(taught) == pytest.approx(2 * NUMBER, rel=1e-3)
    assert needed(taught).download == pytest.approx(2 * (NUMBER + 7.24e9), rel=1e-3)
    assert disk.teacher(recipe()) is None
    unknown = recipe("distillation={teacher: nobody/knows}")
    assert disk.teacher(unknown) is None
    assert needed(unknown).download == needed(recipe()).download
    (tmp_path / "config.json").write_text("{")
    assert disk.teacher(recipe(f"distillation={{teacher: {tmp_path}}}")) is None


def test_a_model_trained_elsewhere_leaves_no_checkpoints(recipe: Make, tmp_path: Path) -> None:
    assert needed(recipe(f"model.trained={tmp_path}")).checkpoints == 0


@pytest.mark.parametrize("name", ["nobody/knows", "/no/such/folder"])
def test_what_is_not_known_takes_no_room(recipe: Make, name: str) -> None:
    found = recipe(f"model.base_model={name}")
    assert disk.needed(found) is None
    assert disk.memory(found) == {}
    assert list(disk.short(found, STAGES, Free(0, 0, 0, beside=True), 0, started=False)) == []


def test_a_model_that_cannot_be_read_takes_no_room(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    found = recipe(f"model.base_model={tmp_path}")
    assert disk.needed(found) is None
    assert disk.memory(found) == {}


def test_enough_room(recipe: Make) -> None:
    assert list(disk.short(recipe(), STAGES, PLENTY, 0, started=False)) == []


def test_too_little_disk(recipe: Make) -> None:
    """Everything that is asked for is counted, on whose disk it lies, and of a run that was started what is left."""

    def words(free: Free, *stages: str, started: bool = False, **more: str) -> str:
        changes = [f"artifacts.dir={more['dir']}"] if more else []
        said = list(disk.short(recipe(*changes), stages or STAGES, free, 0, started=started))
        return said[0][0] if said else ""

    little = replace(PLENTY, runs=1000)
    assert words(little).startswith("the run takes 622.6 GB on disk (checkpoints 0.5 GB, model 0.1 GB, merged 93.4 GB,")
    assert "download 93.4 GB" in words(little)
    assert "download" not in words(replace(little, hub=10**12))
    assert words(replace(PLENTY, hub=1000)) == "the model takes 93.4 GB in the hub's cache, 0.0 GB are free"
    assert words(replace(PLENTY, hub=1000), "merge") == ""
    assert words(little, "train").startswith("the run takes 94.0 GB on disk (checkpoints 0.5 GB, model 0.1 GB, down")
    assert words(little, "prepare") == ""
    assert "published" in words(replace(little, beside=True), dir="/models")
    assert words(little, started=True).startswith("the run takes 341.8 GB on disk (quantized 341.8 GB)")
    assert words(little, "merge", started=True) == ""


def test_folds_are_so_many_runs_and_make_no_package(recipe: Make) -> None:
    folds, little = "evaluation.cross_validation={folds: 10}", replace(PLENTY, runs=1000, memory=1000)
    one, found = needed(recipe()), needed(recipe(folds))
    assert found.run == one.checkpoints + one.model
    ((all_of_them, _),) = disk.short(recipe(folds), ("train", "evaluate"), little, 0, started=False)
    assert all_of_them.startswith("the run takes 98.9 GB on disk (checkpoints 4.9 GB, model 0.5 GB, download 93.4 GB)")
    named = disk.short(recipe(folds, "evaluation.cross_validation.fold=2"), ("train",), little, 0, started=False)
    assert "(checkpoints 0.5 GB, model 0.1 GB, download" in next(named)[0]
    assert disk.memory(recipe(folds)) == {}


def test_what_helps_when_the_disk_is_small(recipe: Make) -> None:
    def hint(*changes: str) -> str:
        full = recipe("lora=null", "quantization.export=[]", *changes)
        return next(disk.short(full, STAGES, replace(PLENTY, runs=1000), 0, started=False))[1]

    assert hint().endswith("or keep fewer: --set training.keep_checkpoints=1")
    assert hint("training.keep_checkpoints=1").endswith("with --runs DIR")


def test_too_little_memory(recipe: Make) -> None:
    small = replace(PLENTY, memory=10**11)
    (merge, quantize) = disk.short(recipe(), STAGES, small, 0, started=False)
    assert merge[0] == "merge takes 186.8 GB of memory, this machine has 100.0 GB"
    assert quantize[0].startswith("quantize takes 186.8 GB")
    assert list(disk.short(recipe(), ("train",), small, 0, started=False)) == []
    (offloaded,) = disk.short(recipe(), ("train",), small, 2 * 10**11, started=False)
    assert offloaded[0] == "what is offloaded takes 200.0 GB of memory, this machine has 100.0 GB"
    assert list(disk.short(recipe(), ("evaluate",), small, 2 * 10**11, started=False)) == []
