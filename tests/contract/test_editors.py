"""The schema as other programs read it: where it lies in the repository, and as one file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sysml_run import resources, schema

RECIPES = sorted(resources.recipes().glob("*.yaml"))
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)")


@pytest.fixture(scope="module", params=["in the repository", "as one file"])
def schema_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "in the repository":
        return resources.schemas() / schema.ROOT
    file = tmp_path_factory.mktemp("schema") / "recipe.schema.json"
    file.write_text(json.dumps(schema.bundled()))
    return file


def check_jsonschema(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_check_jsonschema_takes_every_shipped_recipe(schema_file: Path) -> None:
    done = check_jsonschema("--schemafile", schema_file, *RECIPES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_jsonschema_refuses_a_misspelt_key_in_every_section(schema_file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(RECIPES[0].read_text().replace("micro_batch_size", "micro_batchsize"))
    done = check_jsonschema("--schemafile", schema_file, recipe)
    assert done.returncode == 1
    assert "micro_batchsize" in done.stdout


def test_check_jsonschema_holds_the_files_to_the_metaschema() -> None:
    done = check_jsonschema("--check-metaschema", *sorted(resources.schemas().glob("*.json")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_modeline_of_every_recipe_leads_to_the_schema(recipe: Path) -> None:
    found = MODELINE.fullmatch(recipe.read_text().split("\n")[0])
    assert found is not None, "the first line tells yaml-language-server which schema to use"
    assert (recipe.parent / found[1]).resolve() == (resources.schemas() / schema.ROOT).resolve()


def test_references_are_relative_and_lead_to_files() -> None:
    references = re.findall(r'"\$ref": "([^"]+)"', (resources.schemas() / schema.ROOT).read_text())
    assert len(references) > 10
    for reference in references:
        assert (resources.schemas() / reference.partition("#")[0]).is_file()


def test_yaml_1_1_readers_see_the_same_recipe() -> None:
    """Editors read YAML 1.1 or 1.2; what they would read differently is not in a shipped recipe, but for 1.5e-3."""
    from sysml_run import document

    for recipe in RECIPES:
        ours, theirs = document.load(recipe).value, yaml.safe_load(recipe.read_text())
        theirs["optimizer"]["learning_rate"] = float(theirs["optimizer"]["learning_rate"])
        assert ours == theirs
