"""What stages read and write, for every stage of every recipe."""

from __future__ import annotations

import pytest

from sysml_run import document, overrides, plan, resources, stagefiles
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

RECIPES = sorted(resources.recipes().glob("*.yaml"))


def recipe(name: str, *changes: str) -> Recipe:
    return resolve(overrides.apply(document.load(resources.recipes() / f"{name}.yaml"), changes)).recipe


def test_every_stage_has_a_row() -> None:
    assert tuple(stagefiles.FILES) == tuple(stage.name for stage in plan.STAGES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_stage_reads_an_earlier_one_has_written(path) -> None:
    """Or it stands in the recipe."""
    found = resolve(document.load(path)).recipe
    known = {found.model.base_model, found.model.tokenizer, *(dataset.path for dataset in found.datasets)}
    known |= {found.distillation.teacher} if found.distillation else set()
    written = {"records"}
    for stage in plan.STAGES:
        if stage.wanted(found):
            files = stagefiles.FILES[stage.name]
            assert set(files.inputs(found)) <= written | known, stage.name
            written |= set(files.outputs(found))
    assert {"model", "package", "report.html"} <= written


def test_what_depends_on_the_recipe() -> None:
    full = recipe("quickstart", "lora=null", "artifacts.dir=/models/one", "quantization.export=[{method: gguf}]")
    assert stagefiles.FILES["package"].inputs(full) == ("model", "quantized", "evaluation.json")
    assert stagefiles.FILES["package"].outputs(full) == ("package", "/models/one")
    assert stagefiles.FILES["quantize"].inputs(full) == ("model", "data")
    taught = recipe("quickstart", "distillation={teacher: tiny:llama}", "artifacts.dir=null")
    assert stagefiles.FILES["teacher"].inputs(taught) == ("tiny:llama", "data")
    assert stagefiles.FILES["train"].inputs(taught)[1:] == ("data", "data/teacher.json")
    assert stagefiles.FILES["package"].outputs(taught) == ("package",)
