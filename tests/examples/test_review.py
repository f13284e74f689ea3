"""The examples of code review, in real repositories: git's own diff, and the shell lines of the workflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REVIEW = ROOT / "examples" / "review"
WORKFLOW: dict[str, Any] = yaml.safe_load((REVIEW / "recipes.yml").read_text())
STEPS = WORKFLOW["jobs"]["review"]["steps"]
RECIPE = """\
version: 1
name: one
model: {base_model: ../models/words}
datasets: [{path: ../../rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {num_epochs: 1, micro_batch_size: 8}
"""
GH = """\
#!/bin/sh
# Stands for GitHub's own command: notes what it is asked, and answers with the ids in `comments`.
echo "$*" >> "$RUNNER_TEMP/asked"
case "$*" in *--jq*) cat "$RUNNER_TEMP/comments" ;; esac
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Variables of a runner; the repository is in `work`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    (tmp_path / "comments").write_text("")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "GITHUB_"))}
    who = {f"GIT_{role}_{part}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    return {
        **kept,
        **who,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_PAGER": "cat",
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "runner"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_REPOSITORY": "owner/name",
        "NUMBER": "7",
        "BASE": "main",
    }


@pytest.fixture
def work(tmp_path: Path, env: dict[str, str]) -> Path:
    """A repository with the examples, two recipes on main, and a branch that has changed one and added one."""
    folder = tmp_path / "work"
    (folder / "recipes").mkdir(parents=True)
    shutil.copytree(REVIEW, folder / "examples/review")
    (folder / "recipes/one.yaml").write_text(RECIPE)
    (folder / "recipes/same.yaml").write_text(RECIPE)
    shell(folder, env, "git init --quiet --initial-branch main; git add --all; git commit --quiet -m first")
    (folder / "recipes/one.yaml").write_text("# slower\n" + RECIPE.replace("1e-3", "5e-4").replace("}\n", "}  #\n"))
    (folder / "recipes/new one.yaml").write_text(RECIPE)
    shell(folder, env, "git checkout --quiet -b change; git add --all; git commit --quiet -m second")
    return folder


def shell(folder: Path, env: dict[str, str], lines: str, code: int = 0) -> str:
    """As a runner does: `bash -e` over a file of lines."""
    done = subprocess.run(["bash", "-e", "-c", lines], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def step(name: str) -> str:
    (found,) = [one["run"] for one in STEPS if one.get("name") == name]
    return str(found)


def set_up(folder: Path, env: dict[str, str]) -> None:
    (lines,) = [text for text in snippets() if "textconv" in text]
    shell(folder, env, lines)


def snippets() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (REVIEW / "README.md").read_text(), re.DOTALL)


def changed(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if re.match(r"[-+](?![-+])", line)]


def test_git_compares_by_meaning(work: Path, env: dict[str, str]) -> None:
    command = "git diff main change -- recipes/one.yaml"
    assert "+# slower" in shell(work, env, command)
    set_up(work, env)
    wanted = ["-optimizer.learning_rate: 0.001", "+optimizer.learning_rate: 0.0005"]
    assert changed(shell(work, env, command)) == wanted
    assert changed(shell(work, env, "git log -1 -p -- recipes/one.yaml")) == wanted
    assert "+# slower" in shell(work, env, f"{command} --no-textconv".replace("diff", "diff --no-textconv", 1))


def test_git_compares_the_working_tree_with_what_is_stored(work: Path, env: dict[str, str]) -> None:
    """Beside the one lie rows and a model, beside git's temporary file of the other nothing."""
    set_up(work, env)
    (work / "models/words").mkdir(parents=True)
    (work / "models/words/config.json").write_text("{}")
    (work.parent / "rows.jsonl").write_text("{}")
    (work / "recipes/same.yaml").write_text(f"{RECIPE}seed: 3\n")
    assert changed(shell(work, env, "git diff -- recipes/same.yaml")) == ["-seed: 42", "+seed: 3"]
    (work / "recipes/same.yaml").write_text(f"seed: 42 # the default\n{RECIPE}")
    assert changed(shell(work, env, "git diff -- recipes/same.yaml")) == []


def test_git_compares_a_broken_recipe_as_it_is(work: Path, env: dict[str, str]) -> None:
    set_up(work, env)
    (work / "recipes/same.yaml").write_text(f"{RECIPE}sead: 3\n")
    shown = shell(work, env, "git diff -- recipes/same.yaml")
    assert "+sead: 3" in changed(shown)
    assert "-version: 1" not in changed(shown)
    assert "+datasets: [{path: ../../rows.jsonl, type: messages}]" in changed(shown)


def test_the_first_snippet_of_the_page(work: Path, env: dict[str, str]) -> None:
    (lines,) = [text for text in snippets() if "sysml-run diff" in text]
    shown = shell(work, env, lines.replace("quickstart", "one"))
    assert shown.startswith("A  recipes/one.yaml@HEAD~1\nB  recipes/one.yaml\n")
    assert "0.001  0.0005  A:5   B:6" in shown


def test_validate(work: Path, env: dict[str, str]) -> None:
    assert "3 recipes: " in shell(work, env, step("Validate"))
    (work / "recipes/one.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    assert "::error file=recipes/one.yaml,line=5," in shell(work, env, step("Validate"), code=2)


def test_compare(work: Path, env: dict[str, str]) -> None:
    base = shell(work, env, "git rev-parse --short main").strip()
    shell(work, env, step("Compare"))
    comment = Path(env["RUNNER_TEMP"], "comment.md").read_text()
    assert comment.startswith("<!-- sysml-run diff -->\n")
    assert "**`recipes/new one.yaml` is new**\n" in comment
    assert f"**`recipes/one.yaml@{base}` → `recipes/one.yaml`**\n" in comment
    assert "| `optimizer.learning_rate` | `0.001` | `0.0005` | A:5 | B:6 |\n" in comment
    assert "same.yaml" not in comment
    assert Path(env["GITHUB_STEP_SUMMARY"]).read_text() == comment


def test_compare_goes_from_where_the_branch_began(work: Path, env: dict[str, str]) -> None:
    shell(work, env, "git checkout --quiet main; git rm --quiet recipes/same.yaml; git commit --quiet -m third")
    shell(work, env, f"git checkout --quiet change\n{step('Compare')}")
    comment = Path(env["RUNNER_TEMP"], "comment.md").read_text()
    assert "same.yaml" not in comment
    assert "`0.0005`" in comment


def test_compare_goes_on_after_a_recipe_that_is_broken(work: Path, env: dict[str, str]) -> None:
    (work / "recipes/one.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    (work / "recipes/same.yaml").write_text(f"{RECIPE}seed: 1\n")
    shell(work, env, f"git commit --quiet --all -m broken\n{step('Compare')}")
    comment = Path(env["RUNNER_TEMP"], "comment.md").read_text()
    assert re.search(r"(?m)^\*\*`recipes/one.yaml@\w+` → `recipes/one.yaml` cannot be compared; the log ", comment)
    assert "| `seed` | `42` | `1` | default | B:7 |\n" in comment


def test_compare_knows_renamed_and_deleted_recipes(work: Path, env: dict[str, str]) -> None:
    base = shell(work, env, "git rev-parse --short main").strip()
    shell(
        work, env, "git rm --quiet recipes/same.yaml 'recipes/new one.yaml'; git mv recipes/one.yaml recipes/two.yaml"
    )
    (work / "recipes/two.yaml").write_text(RECIPE.replace("1e-3", "9e-4"))
    shell(work, env, f"git commit --quiet --all -m renamed\n{step('Compare')}")
    comment = Path(env["RUNNER_TEMP"], "comment.md").read_text()
    assert f"**`recipes/one.yaml@{base}` → `recipes/two.yaml`**\n" in comment
    assert "| `optimizer.learning_rate` | `0.001` | `0.0009` | A:5 | B:5 |\n" in comment
    assert f"**`recipes/same.yaml@{base}` is deleted**\n" in comment
    assert "is new" not in comment


@pytest.mark.parametrize("name", ["a`<b>`@owner [x](y)|.yaml", "a\n**b**\n.yaml", "-n $(touch ran).yaml"])
def test_names_of_files_are_no_markup_and_no_shell(work: Path, env: dict[str, str], name: str) -> None:
    (work / "recipes" / name).write_text(RECIPE)
    (work / "recipes" / f"bad {name}").write_text("[")
    shell(work, env, f"git add --all; git commit --quiet -m names\n{step('Compare')}")
    comment = Path(env["RUNNER_TEMP"], "comment.md").read_text()
    assert comment.count("is new**\n") == 2
    assert comment.count("cannot be compared") == 1
    outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", comment.replace("<!-- sysml-run diff -->", ""))
    assert not set("<@[`") & set(outside)
    assert "**b**" not in outside
    assert not list(work.rglob("ran"))


def test_what_is_installed_is_pinned() -> None:
    (source,) = [one["env"]["SOURCE"] for one in STEPS if one.get("name") == "Install"]
    assert re.fullmatch(r"git\+https://github\.com/[\w.-]+/sysml-run@[0-9a-f]{40}", source)
    assert step("Install") == 'pip install "$SOURCE"'


def test_comment_is_made_once_and_then_kept_up_to_date(work: Path, env: dict[str, str]) -> None:
    comment = Path(env["RUNNER_TEMP"], "comment.md")
    comment.write_text("é" * 40_000)
    shell(work, env, step("Comment"))
    body = Path(env["RUNNER_TEMP"], "body.md")
    assert body.read_text() == "é" * 30_000
    asked = Path(env["RUNNER_TEMP"], "asked")
    made = f"api --silent repos/owner/name/issues/7/comments --field body=@{body}"
    assert asked.read_text().splitlines()[1:] == [made]
    Path(env["RUNNER_TEMP"], "comments").write_text("11\n12\n")
    comment.write_text("x" + "é" * 40_000)
    shell(work, env, step("Comment"))
    assert body.read_text() == "x" + "é" * 29_999
    changed = f"api --silent --method PATCH repos/owner/name/issues/comments/11 --field body=@{body}"
    assert asked.read_text().splitlines()[3:] == [changed]


def test_the_workflow_may_do_little() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["review"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert WORKFLOW[True] == {"pull_request": {"paths": ["recipes/**"]}}, "YAML 1.1 reads `on` as true"
    assert not any("${{" in one.get("run", "") for one in STEPS), "words of a pull request must not become shell"
    tokens = [one["name"] for one in STEPS if "token" in str(one.get("env"))]
    assert tokens == ["Comment"]
    assert not any("secrets" in str(one) for one in STEPS)
    used = [one["uses"] for one in STEPS if "uses" in one]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)
