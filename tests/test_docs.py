"""Every snippet of the README is run; the two `make` lines are run elsewhere and held to the Makefile here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysml_run import document, validate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
BLOCKS = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
HOOKS = [text for text in BLOCKS if text.startswith("repos:")]
YAML = [text for text in BLOCKS if text not in HOOKS]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user's folder holds after `make quickstart`, without its runs."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "examples/migrate", folder / "examples/migrate")
    (folder / "examples/data").mkdir(parents=True)
    make = [sys.executable, str(ROOT / "examples/make_findings.py"), "--rows", "120"]
    subprocess.run([*make, "--out", "examples/data/findings.tar.gz"], cwd=folder, check=True, capture_output=True)
    where = f"BIN={Path(sys.executable).parent}"  # `new` names the archive of the recipe that it starts from
    subprocess.run(["make", "-o", ".venv/.ready", where, "examples/data/findings.tar.gz"], cwd=ROOT, check=True)
    return folder


def test_there_are_snippets() -> None:
    assert len(SHELL) >= 6
    assert YAML
    assert HOOKS


@pytest.mark.parametrize("snippet", [text for text in SHELL if text.startswith("make ")])
def test_make_knows_the_target(snippet: str) -> None:
    done = subprocess.run([*snippet.split(), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("snippet", [text for text in SHELL if not text.startswith("make ")])
def test_the_snippet_runs(snippet: str, checkout: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(snippet, shell=True, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_diff_is_the_one_that_is_printed(checkout: Path) -> None:
    command, shown = re.findall(r"```sh\nsysml-run (diff [^\n]+)\n```\n\n```text\n(.*?)```", README, re.DOTALL)[0]
    argv = [sys.executable, "-m", "sysml_run.cli", *command.split()]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, check=True)
    printed = done.stdout.splitlines()
    assert len(shown.splitlines()) > 10
    assert all(line in printed for line in shown.splitlines())


def test_the_fit_is_the_one_that_is_printed(checkout: Path) -> None:
    command, shown = re.findall(r"```sh\nsysml-run (plan [^\n]+ --fit)\n```\n\n```text\n(.*?)```", README, re.DOTALL)[0]
    argv = [sys.executable, "-m", "sysml_run.cli", *command.split()]
    env = {**os.environ, "HF_HUB_CACHE": str(checkout)}
    done = subprocess.run(argv, cwd=checkout, env=env, capture_output=True, text=True, check=True)
    printed = done.stdout[-len(shown) :]
    size = re.compile(r"\d+\.\d")
    assert size.sub("", printed) == size.sub("", shown)
    assert [*map(float, size.findall(printed))] == pytest.approx([*map(float, size.findall(shown))], rel=0.1)


@pytest.mark.parametrize("snippet", HOOKS)
def test_pre_commit_takes_the_configuration(snippet: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(snippet)
    command = [sys.executable, "-m", "pre_commit", "validate-config", "config.yaml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (hook,) = re.findall(r"- id: (\S+)", snippet)
    assert f"- id: {hook}\n" in (ROOT / ".pre-commit-hooks.yaml").read_text()


@pytest.mark.parametrize("snippet", YAML)
def test_the_recipe_is_valid(snippet: str) -> None:
    assert not validate.check(document.parse(snippet, "README.md"))


def test_every_shipped_recipe_is_in_the_table() -> None:
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"(recipes/{recipe.name})" in README
