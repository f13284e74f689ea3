"""The hook, run by the real pre-commit in a repository made on the spot, from a clone of this source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ("README.md", "LICENSE", "pyproject.toml", ".pre-commit-hooks.yaml", "runner", "schemas", "recipes")
ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHON", "VIRTUAL_ENV"))},
    **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
}
CONFIG = """\
repos:
  - repo: {source}
    rev: {rev}
    hooks:
      - id: sysml-run-validate
"""

pytestmark = pytest.mark.slow


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=folder, env=ENV, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def committed(folder: Path) -> str:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it is")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's repository, whose hook comes from a repository with this source."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    folder = tmp_path_factory.mktemp("project")
    rev = committed(source)
    (folder / ".pre-commit-config.yaml").write_text(CONFIG.format(source=source, rev=rev))
    good = (ROOT / "recipes/quickstart.yaml").read_text()
    (folder / "recipes").mkdir()
    (folder / "recipes/good.yaml").write_text(good)
    (folder / "other.yaml").write_text("not: a recipe\n")
    committed(folder)
    return folder


def pre_commit(folder: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "pre_commit", "run", "--all-files", "--color", "never")
    env = ENV | {"PRE_COMMIT_HOME": str(folder.parent / "pre-commit-home"), "PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_the_hook_passes_good_recipes_and_stops_bad_ones(project: Path) -> None:
    done = pre_commit(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validate sysml-run recipes" in done.stdout
    assert done.stdout.rstrip().endswith("Passed")

    bad = (project / "recipes/good.yaml").read_text().replace("micro_batch_size", "micro_batchsize")
    (project / "recipes/bad.yaml").write_text(bad)
    git(project, "add", "--all")
    done = pre_commit(project)
    line = bad[: bad.index("micro_batchsize")].count("\n") + 1
    assert done.returncode == 1
    assert f"recipes/bad.yaml:{line}:3: training.micro_batchsize: unknown key" in done.stdout
    assert "hint: did you mean micro_batch_size?" in done.stdout
    assert "other.yaml" not in done.stdout

    (env,) = (project.parent / "pre-commit-home").glob("repo*/py_env-*")
    installed = {path.name.partition("-")[0].lower() for path in env.glob("lib/python*/site-packages/*.dist-info")}
    assert installed - {"pip", "setuptools", "wheel"} == {"pyyaml", "sysml_run"}
