"""The wheel in a fresh environment, far from the checkout: its recipes, its schemas, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sysml_run import __version__

ROOT = Path(__file__).parents[2]
DIST = f"sysml_run-{__version__}.dist-info"


def run(*command: str | Path, env: Mapping[str, str], cwd: str | Path = "/") -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """Nothing that could lead back to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, env: Mapping[str, str]) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, env=env, cwd=ROOT)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory, env: Mapping[str, str]) -> Path:
    """The Python of a fresh environment with the wheel, its one dependency, and no pip."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", wheel, env=env)
    run(*pip, "--only-binary", ":all:", "PyYAML>=6.0.2,<7", env=env)
    return python


@pytest.fixture(scope="module")
def packages(python: Path, env: Mapping[str, str]) -> Path:
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", env=env).strip())


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


def test_the_wheel_holds_the_package_the_schemas_and_the_recipes_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"sysml_run", DIST}
    inside = {name.removeprefix("sysml_run/") for name in names if name.startswith("sysml_run/")}
    source = ROOT / "runner/sysml_run"
    wanted = {name for name in files(source, "*") if (source / name).is_file() and "__pycache__" not in name}
    wanted |= {f"{folder}/{name}" for folder in ("schemas", "recipes") for name in files(ROOT / folder, "*.*")}
    assert inside == wanted
    assert not any(name.endswith(".pyc") for name in names)


def test_nothing_else_lands_in_site_packages(packages: Path) -> None:
    ours = {path.name for path in packages.iterdir()} - {"yaml", "_yaml", "__pycache__"}
    assert {name for name in ours if not name.lower().startswith("pyyaml")} == {"sysml_run", DIST}


def test_the_one_dependency_of_the_front_is_stated(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"{DIST}/METADATA").decode().splitlines()
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    assert [line for line in needed if "extra ==" not in line] == ["pyyaml<7,>=6.0.2"]
    assert "Requires-Python: >=3.11" in lines
    assert "License-Expression: Apache-2.0" in lines


def test_every_shipped_recipe_is_valid_from_anywhere(python: Path, packages: Path, env: Mapping[str, str]) -> None:
    command, recipes = python.with_name("sysml-run"), sorted((packages / "sysml_run/recipes").glob("*.yaml"))
    assert {path.name for path in recipes} == {path.name for path in (ROOT / "recipes").glob("*.yaml")} != set()
    shown = json.loads(run(command, "validate", *recipes, "--format", "json", env=env))
    assert [file["path"] for file in shown["files"]] == list(map(str, recipes))
    severities = [problem["severity"] for file in shown["files"] for problem in file["problems"]]
    assert set(severities) <= {"warning"}


def test_help_and_version(python: Path, env: Mapping[str, str]) -> None:
    command = python.with_name("sysml-run")
    assert run(command, "--help", env=env).startswith("usage: sysml-run")
    assert run(command, "--version", env=env) == f"sysml-run {__version__}\n"


def test_what_training_lacks_is_said_before_anything_starts(
    python: Path, tmp_path: Path, env: Mapping[str, str]
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = tmp_path / "one.yaml"
    recipe.write_text(
        "version: 1\nname: one\nmodel: {base_model: 'tiny:llama'}\ntraining: {max_steps: 1}\n"
        "datasets: [{path: rows.jsonl, type: messages}]\noptimizer: {name: lion, learning_rate: 1e-3}\n"
    )
    done = subprocess.run(
        [python.with_name("sysml-run"), recipe], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: not installed: torch, transformers, peft, trl, accelerate, datasets,")
    assert "bitsandbytes" in done.stderr
    assert "pip install 'sysml-run[train]'" in done.stderr
    assert not (tmp_path / "runs").exists()
