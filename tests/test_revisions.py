"""Recipes as git knows them: real repositories, and what is said when git has not what was asked for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sysml_run import cli, revisions
from sysml_run.errors import RecipeError, UsageError
from sysml_run.resolve import resolve

RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: ../rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {num_epochs: 1, micro_batch_size: 8}
"""


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tag `first`, `main` with another learning rate, and the branch feature/x with another seed."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Someone")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "someone@example.com")
    folder = tmp_path / "repository"
    (folder / "recipes").mkdir(parents=True)
    monkeypatch.chdir(folder)
    git("init", "--quiet", "--initial-branch", "main")
    Path("recipes/one.yaml").write_text(RECIPE)
    commit("first")
    git("tag", "first")
    git("checkout", "--quiet", "-b", "feature/x")
    Path("recipes/one.yaml").write_text(f"{RECIPE}seed: 1\n")
    commit("seed")
    git("checkout", "--quiet", "main")
    Path("recipes/one.yaml").write_text(RECIPE.replace("1e-3", "2e-3"))
    commit("second")
    return folder


@pytest.mark.parametrize(
    ("name", "rate", "seed"),
    [
        ("recipes/one.yaml", 2e-3, 42),
        ("recipes/one.yaml@HEAD", 2e-3, 42),
        ("recipes/one.yaml@first", 1e-3, 42),
        ("recipes/one.yaml@HEAD~1", 1e-3, 42),
        ("recipes/one.yaml@main@{0}", 2e-3, 42),
        ("recipes/one.yaml@feature/x", 1e-3, 1),
        ("./recipes/../recipes/one.yaml@first", 1e-3, 42),
    ],
)
def test_revisions(repository: Path, name: str, rate: float, seed: int) -> None:
    read = revisions.read(name)
    assert read.source == name
    recipe = resolve(read).recipe
    assert (recipe.optimizer.learning_rate, recipe.seed) == (rate, seed)
    assert recipe.datasets[0].path == str(repository / "rows.jsonl")


def test_from_within_and_from_outside(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "recipes")
    assert "1e-3" in revisions.read("one.yaml@first").text
    assert "1e-3" in revisions.read("../recipes/one.yaml@first").text
    monkeypatch.chdir("/")
    assert "1e-3" in revisions.read(f"{repository}/recipes/one.yaml@first").text


def test_a_file_whose_folder_is_gone(repository: Path) -> None:
    git("mv", "recipes/one.yaml", "moved.yaml")
    Path("recipes").rmdir()
    assert resolve(revisions.read("recipes/one.yaml@first")).recipe.datasets[0].path == str(repository / "rows.jsonl")


def test_a_file_with_an_at_sign_in_its_name_wins(repository: Path) -> None:
    Path("recipes/one.yaml@first").write_text(f"{RECIPE}seed: 9\n")
    assert "seed: 9" in revisions.read("recipes/one.yaml@first").text
    Path("recipes/b@c").write_text(f"{RECIPE}seed: 8\n")
    commit("more")
    assert "seed: 8" in revisions.read("recipes/b@c@HEAD").text


def test_what_is_stored_is_read_and_no_filter_runs(repository: Path) -> None:
    """A repository can name programs for git to run; reading a recipe runs none of them."""
    Path(".gitattributes").write_text("*.yaml diff=recipe filter=recipe\n")
    git("config", "diff.recipe.textconv", "touch ran; cat")
    git("config", "filter.recipe.smudge", "touch ran; cat")
    git("config", "core.fsmonitor", "touch ran; true")
    assert "1e-3" in revisions.read("recipes/one.yaml@first").text
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("recipes/one.yaml@nowhere", "git knows no revision 'nowhere'", "git fetch"),
        ("recipes/one.yaml@--help", "git knows no revision '--help'", "git branch --all"),
        ("recipes/one.yaml@first:recipes", "git knows no revision", "git tag"),
        ("recipes/two.yaml@first", "there is no file recipes/two.yaml at first", "git ls-tree -r --name-only first"),
        ("recipes@first", "there is no file recipes at first", "git ls-tree"),
        ("/one.yaml@first", "/ is in no repository", "name two files"),
    ],
)
def test_what_git_has_not(repository: Path, name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as caught:
        revisions.read(name)
    assert hint in str(caught.value.hint)


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="not on the PATH"):
        revisions.read("recipes/one.yaml@first")


@pytest.mark.parametrize("name", ["absent.yaml", "recipes", "recipes/one.yaml@", "@"])
def test_what_is_no_recipe_and_names_no_revision(repository: Path, name: str) -> None:
    with pytest.raises(RecipeError):
        revisions.read(name)


def test_a_broken_revision_is_told_by_its_name(repository: Path, capsys: Any) -> None:
    Path("recipes/one.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    commit("broken")
    Path("recipes/one.yaml").write_text(RECIPE)
    assert cli.main(["diff", "recipes/one.yaml@HEAD", "recipes/one.yaml"]) == 2
    assert "recipes/one.yaml@HEAD:5:41: optimizer.learning_rate: expected a number" in capsys.readouterr().err
    Path("recipes/one.yaml").write_bytes(b"\xff")
    commit("no text")
    assert cli.main(["show", "recipes/one.yaml@HEAD"]) == 2
    assert "recipes/one.yaml@HEAD:1:1: not UTF-8 text" in capsys.readouterr().err


def test_two_revisions_differ_in_what_was_changed(repository: Path, capsys: Any) -> None:
    command = ["diff", "recipes/one.yaml@first", "recipes/one.yaml@feature/x", "--format", "json"]
    assert cli.main(command) == 0
    (change,) = json.loads(capsys.readouterr().out)["changed"]
    source = "recipes/one.yaml@feature/x:7"
    sources = {"from_source": "default", "to_source": source}
    assert change == {"pointer": "seed", "from_pointer": "seed", "from": 42, "to": 1, **sources}
