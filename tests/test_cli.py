"""The command line: help, exit codes, and words instead of tracebacks."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sysml_run import __version__, cli, errors, resources, runs
from sysml_run.commands import run
from sysml_run.commands.run import recipes
from sysml_run.commands.validate import names
from sysml_run.options import COMMANDS, parser

RUNNER = Path(cli.__file__).parents[1]
RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: rows.jsonl, type: prompt_completion}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a recipe whose rows are not JSON and one that is not valid."""
    (tmp_path / "one.yaml").write_text(RECIPE)
    (tmp_path / "bad.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    (tmp_path / "warned.yaml").write_text(RECIPE.replace("rows.jsonl", "absent.jsonl"))
    (tmp_path / "rows.jsonl").write_text("this is not JSON\n" * 8)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sysml_run(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The real command in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(RUNNER), "XDG_CACHE_HOME": "cache", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sysml_run.cli", *arguments]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command: str, capsys) -> None:
    assert cli.main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"examples:\n  {COMMANDS[command].examples.splitlines()[0]}\n" in shown
    assert all(f"{code} " in shown for code in (0, 1, 2, 3, 130))
    assert COMMANDS[command].does in shown


def test_the_first_help_names_every_command(capsys) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown and command.does in shown for name, command in COMMANDS.items())


def test_there_is_a_module_for_every_command() -> None:
    beside = {"__init__", "folds", "load", "machines", "stages"}
    files = {file.stem for file in Path(run.__file__).parent.glob("*.py")} - beside
    assert files == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_are_understood(command: str) -> None:
    for line in COMMANDS[command].examples.splitlines():
        _, _, ours = line.partition("sysml-run ")
        words = shlex.split(ours.split("   ")[0].split(" > ")[0])
        named = words.pop(0) if words[0] in COMMANDS else "run"
        assert named == command
        parser(command).parse_args(words)
        files = [word.partition("@")[0] for word in words if word.startswith("recipes/") and "*" not in word]
        assert all((resources.recipes() / Path(name).name).is_file() for name in files)


def test_version(capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sysml-run {__version__}\n"


def test_exit_code_0(capsys) -> None:
    assert cli.main(["validate", "one.yaml", "warned.yaml"]) == 0
    assert capsys.readouterr().out.startswith("warned.yaml:4:19: warning: datasets.0.path: there is nothing at ")
    assert cli.main(["plan", "one.yaml"]) == 0
    assert "one: tiny:llama, full fine-tune, adamw 0.001" in capsys.readouterr().out


def test_a_warning_stops_nothing(capsys) -> None:
    assert cli.main(["plan", "one.yaml", "--set", "model.trust_remote_code=true"]) == 0
    assert "warning: model.trust_remote_code: runs Python code" in capsys.readouterr().err


USAGE: dict[str, tuple[Sequence[str], str]] = {
    "no recipe": ([], "no recipe is named"),
    "misspelt command": (["validat", "one.yaml"], "did you mean sysml-run validate?"),
    "nothing in the folder": (["validate", "empty"], "no recipe at empty"),
    "nothing matches": (["validate", "*.txt"], "no recipe at *.txt"),
    "nothing to validate": (["validate"], "RECIPE"),
    "an empty name": (["validate", ""], "the name is empty"),
    "two plans": (["plan", "one.yaml", "bad.yaml"], "bad.yaml"),
    "option": (["one.yaml", "--frobnicate"], "--frobnicate"),
    "part of an option": (["one.yaml", "--smo"], "--smo"),
    "format": (["validate", "one.yaml", "--format", "xml"], "xml"),
    "absent recipe": (["nowhere.yaml"], "nowhere.yaml: cannot be read: No such file"),
    "folder": (["."], "is a folder, not a recipe"),
    "recipe": (["bad.yaml"], "bad.yaml:5:41: optimizer.learning_rate: expected a number"),
    "absent data": (["warned.yaml"], "there is nothing at"),
    "key": (["one.yaml", "--set", "training.steps=1"], "steps"),
    "no value": (["one.yaml", "--set", "training.max_steps"], "a key and a value are wanted"),
    "hardware": (["one.yaml", "--hardware", "abacus"], "--hardware abacus: not understood"),
    "gpu": (["one.yaml", "--hardware", "gpu"], "this machine cannot train the recipe"),
    "only": (["one.yaml", "--only", "trian"], "no stage 'trian'"),
    "until": (["one.yaml", "--until", "merge"], "no stage 'merge'"),
    "resume": (["one.yaml", "--resume", "19990101-000000-abcd"], "no run directory 19990101-000000-abcd"),
    "nothing to resume": (["one.yaml", "--resume"], "there is no run of 'one' in runs"),
    "recipe after --resume": (["--resume", "one.yaml"], "there is no run of 'one' in runs"),
    "model": (["one.yaml", "--set", "model.base_model=/nowhere"], "there is no model at /nowhere"),
    "unknown tiny model": (["one.yaml", "--set", "model.base_model=tiny:gpt9"], "no tiny model"),
    "smoke": (["one.yaml", "--smoke", "--set", "model.base_model=own/er"], "own/er is not known without its files"),
    "folder with files": (["plan", "one.yaml", "--write", "."], "is not an empty folder"),
    "file": (["plan", "one.yaml", "--write", "one.yaml"], "is not an empty folder"),
}


@pytest.mark.parametrize("name", USAGE)
def test_exit_code_2(name: str, capsys, project: Path) -> None:
    arguments, words = USAGE[name]
    before = sorted(project.rglob("*"))
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert sorted(project.rglob("*")) == before, "it left something behind"


def test_validate_finds_every_problem_of_every_file(capsys) -> None:
    assert cli.main(["validate", "bad.yaml", "warned.yaml", "nowhere.yaml", "--format", "json"]) == 2
    found = {file["path"]: file["problems"] for file in json.loads(capsys.readouterr().out)["files"]}
    assert [len(found[name]) for name in ("bad.yaml", "warned.yaml", "nowhere.yaml")] == [1, 1, 1]
    assert found["warned.yaml"][0]["severity"] == "warning"


def test_validate_takes_folders_patterns_and_stdin(capsys, project: Path) -> None:
    (project / "more/.hidden").mkdir(parents=True)
    for name in ("more/two.yml", "more/notes.txt", "more/.hidden/x.yaml"):
        (project / name).write_text(RECIPE)
    assert names(["more", "o*.yaml", "one.yaml", "-"]) == ["more/two.yml", "one.yaml", "-"]
    (project / "o[dd].yaml").write_text(RECIPE)
    assert names(["o[dd].yaml"]) == ["o[dd].yaml"], "a file of that name is no pattern"
    process = sysml_run("validate", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = process.communicate(RECIPE.replace("1e-3", "fast"), timeout=30)
    assert process.returncode == 2
    assert out.startswith("<stdin>:5:41: optimizer.learning_rate: expected a number")
    process = sysml_run("validate", "-", "--format", "json", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    (found,) = json.loads(process.communicate(RECIPE.replace("1e-3", "fast"), timeout=30)[0])["files"]
    assert (found["path"], found["problems"][0]["source"]) == ("<stdin>", "<stdin>")


def test_strict_makes_warnings_fail(capsys) -> None:
    assert cli.main(["validate", "warned.yaml"]) == 0
    assert cli.main(["validate", "warned.yaml", "--strict"]) == 2
    assert cli.main(["validate", "one.yaml", "--strict"]) == 0
    assert capsys.readouterr().out.endswith("1 recipe: no problems\n")


def test_exit_code_1_names_the_log_and_repeats_the_workers_words(project: Path) -> None:
    process = sysml_run("one.yaml", "--until", "prepare", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    (folder,) = (project / "runs/one").iterdir()
    assert err.startswith("error: prepare failed: ")
    assert f"log: {folder}/logs/prepare.log" in err
    assert "Traceback" not in out + err
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("runs_folder", ["one.yaml", "one.yaml/deeper"])
def test_a_folder_that_cannot_be_made_is_no_fault_of_ours(runs_folder: str, capsys) -> None:
    assert cli.main(["one.yaml", "--runs", runs_folder]) == 1
    shown = capsys.readouterr().err
    assert "one.yaml" in shown
    assert "fault" not in shown


def broken(error: BaseException):
    def run(options: argparse.Namespace) -> int:
        raise error

    return lambda name: run


def test_exit_code_3_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "_command", broken(ValueError("a surprise")))
    assert cli.main(["one.yaml"]) == 3
    said = capsys.readouterr().err
    (report,) = tmp_path.glob("sysml-run-fault-*.txt")
    assert said == f"This is a fault of sysml-run, not of your recipe. Details: {report}\n"
    assert f"sysml-run {__version__}, Python 3." in report.read_text()
    assert "ValueError: a surprise" in report.read_text()


def test_an_odd_error_of_the_system_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "_command", broken(FileNotFoundError(2, "No such file", "ours")))
    assert cli.main(["one.yaml"]) == 3


def test_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(cli, "_command", broken(KeyboardInterrupt()))
    assert cli.main(["one.yaml"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_hints_follow_the_message(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(cli, "_command", broken(errors.StageError("it broke", "do this\nthen that")))
    assert cli.main(["one.yaml"]) == 1
    assert capsys.readouterr().err == "error: it broke\n  do this\n  then that\n"


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "one.yaml"], ["validate", "bad.yaml", "--format", "json"]])
def test_a_reader_that_has_gone(arguments: list[str]) -> None:
    process = sysml_run(*arguments, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert process.returncode == (0 if arguments == ["--help"] else 1)
    assert err == ""


def test_head(project: Path) -> None:
    shown = subprocess.run(
        f"{sys.executable} -m sysml_run.cli plan one.yaml | head -1",
        shell=True, env={**os.environ, "PYTHONPATH": str(RUNNER)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (shown.stdout, shown.stderr) == ("one: tiny:llama, full fine-tune, adamw 0.001\n", "")


def test_json_is_all_that_is_printed(capsys) -> None:
    assert cli.main(["plan", "one.yaml", "--smoke", "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["recipe"] == "one.yaml"
    assert "--smoke swaps" in shown.err


def test_write_lays_out_a_run_directory(capsys, project: Path) -> None:
    for name in ("new/run", "empty"):
        assert cli.main(["plan", "one.yaml", "--write", name, "--offline"]) == 0
        assert f"--config_file {project}/{name}/launch/accelerate.yaml" in capsys.readouterr().out
        assert (project / name / "recipe.json").is_file()
        assert "HF_HUB_OFFLINE=1" in (project / name / "launch/train.sh").read_text()
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "named", "wanted"),
    [
        (["a.yaml", "b.yaml"], ["a.yaml", "b.yaml"], None),
        (["a.yaml", "--resume"], ["a.yaml"], ""),
        (["--resume", "a.yaml"], ["a.yaml"], ""),
        (["--resume", "a.yml", "b.yaml"], ["a.yml", "b.yaml"], ""),
        (["a.yaml", "--resume", "runs/a/1"], ["a.yaml"], "runs/a/1"),
        (["--resume", "runs/a/1", "a.yaml"], ["a.yaml"], "runs/a/1"),
    ],
)
def test_what_resume_means(arguments: list[str], named: list[str], wanted: str | None) -> None:
    assert recipes(parser("run").parse_args(arguments)) == (named, wanted)


def test_a_changed_recipe_is_not_resumed(capsys) -> None:
    assert cli.main(["plan", "one.yaml", "--write", "runs/one/20260101-000000-abcd"]) == 0
    assert cli.main(["one.yaml", "--resume", "--set", "seed=1"]) == 2
    assert "-abcd was started: seed\n" in capsys.readouterr().err


def test_a_run_in_use_is_left_alone(capsys, project: Path) -> None:
    assert cli.main(["plan", "one.yaml", "--write", "runs/one/20260101-000000-abcd"]) == 0
    with runs.owned(runs.find(project / "runs", "one", "")):
        assert cli.main(["--resume", "one.yaml"]) == 2
    assert "is in use" in capsys.readouterr().err


def test_run_is_the_default_and_may_be_written(capsys) -> None:
    assert cli.main(["run", "one.yaml", "--until", "merge"]) == 2
    assert "no stage 'merge'" in capsys.readouterr().err


def test_a_run_whose_state_cannot_be_read_is_passed_over_with_a_word(capsys, project: Path) -> None:
    assert cli.main(["plan", "one.yaml", "--write", "runs/one/20260101-000000-abcd"]) == 0
    (project / "runs/one/20260101-000000-abcd/status.json").write_text("{")
    assert cli.main(["one.yaml", "--only", "evaluate"]) == 2
    said = capsys.readouterr().err
    assert "status.json cannot be read: that run is passed over, unless --resume names it\n" in said
    assert "add --resume to --only evaluate, or name a model trained elsewhere" in said
    (project / "runs/one/20260101-000000-abcd/recipe.json").write_text("{")
    assert cli.main(["one.yaml", "--resume"]) == 2
    assert "recipe.json cannot be read" in capsys.readouterr().err
