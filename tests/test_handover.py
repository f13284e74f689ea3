"""Handing over finished runs: one, several, as a Python package, in pieces; whole or not at all, and never damaged."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from sysml_run import cli, handover, verification
from sysml_run.errors import UsageError
from sysml_run.rundir import read_json

from . import finished_package

RUNNER = Path(cli.__file__).parents[1]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def package(*arguments: str | Path, code: int = 0) -> None:
    assert cli.main(["package", *map(str, arguments)]) == code


def test_one_run_is_handed_over_byte_for_byte(tmp_path: Path, capsys) -> None:
    rundir = finished_package.make(tmp_path / "run")
    package(rundir.path, "--out", tmp_path / "out")
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: severity; 6 files, 0.0 MB\n"
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == {
        name: (rundir.package / name).read_bytes() for name in names(rundir.package)
    }
    assert verification.verify(tmp_path / "out") == []


@pytest.mark.parametrize("options", [[], ["--python"], ["--pieces", "1MB"], ["--python", "--pieces", "1MB"]])
def test_the_same_runs_pack_to_the_same_bytes(tmp_path: Path, options: list[str]) -> None:
    for at in ("one", "two"):
        runs = [finished_package.make(tmp_path / at / name, name=name).path for name in ("a", "b")]
        package(*runs, "--out", tmp_path / at / "out", *options)
    sums = [(tmp_path / at / "out" / "SHA256SUMS").read_bytes() for at in ("one", "two")]
    assert sums[0] == sums[1]


def test_several_runs_lie_beside_each_other(tmp_path: Path) -> None:
    runs = [finished_package.make(tmp_path / "runs" / name, name="a b") for name in ("1", "2")]
    package(*(run.path for run in runs), "--out", tmp_path / "out")
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"a-b", "a-b-2", "README.md", "manifest.json", "SHA256SUMS"}
    for folder in (out, out / "a-b", out / "a-b-2"):
        assert verification.verify(folder) == []
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    page = (out / "README.md").read_text()
    assert "| [a-b-2](a-b-2/README.md) | own/base | apache-2.0 | validation loss 0.250 |" in page
    made = read_json(out / "manifest.json")
    assert (made["kind"], made["packages"], made["created"]) == (
        "package",
        ["a-b", "a-b-2"],
        "2026-11-05T10:01:00+00:00",
    )
    (out / "a-b" / "model.safetensors").write_bytes(b"")
    assert verification.verify(out) == ["a-b/model.safetensors: changed"]


class TestRefusals:
    def test_what_is_no_finished_run(self, tmp_path: Path, capsys) -> None:
        package(tmp_path, "--out", tmp_path / "out", code=2)
        assert f"{tmp_path} is not a run directory" in capsys.readouterr().err
        rundir = finished_package.make(tmp_path / "run")
        rundir.record("package").unlink()
        package(rundir.path, "--out", tmp_path / "out", code=2)
        assert f"sysml-run RECIPE --resume {rundir.path}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_a_damaged_package_is_not_handed_on(self, tmp_path: Path, capsys) -> None:
        rundir = finished_package.make(tmp_path / "run")
        (rundir.package / "README.md").write_text("changed")
        package(rundir.path, "--out", tmp_path / "out", code=1)
        shown = capsys.readouterr().err
        assert "is not as it was packed: README.md: changed" in shown
        assert str(rundir.record("package")) in shown
        assert not (tmp_path / "out").exists()

    def test_a_folder_of_others_is_kept_and_a_package_of_ours_replaced(self, tmp_path: Path, capsys) -> None:
        rundir = finished_package.make(tmp_path / "run")
        package(rundir.path, "--out", tmp_path / "out", "--python")
        package(rundir.path, "--out", tmp_path / "out")
        assert verification.verify(tmp_path / "out") == []
        (tmp_path / "out" / "mine.txt").write_text("mine")
        package(rundir.path, "--out", tmp_path / "out", code=2)
        assert "not part of the package: mine.txt" in capsys.readouterr().err
        assert (tmp_path / "out" / "mine.txt").read_text() == "mine"

    @pytest.mark.parametrize("place", ["package", "", "records/deep"])
    def test_a_run_keeps_its_own_package(self, tmp_path: Path, capsys, place: str) -> None:
        runs = [finished_package.make(tmp_path / name, name=name) for name in ("a", "b")]
        package(runs[0].path, "--out", runs[1] / place, code=2)
        assert "--out" in capsys.readouterr().err
        assert read_json(runs[1].package / "manifest.json")["name"] == "b"

    def test_the_same_run_twice(self, tmp_path: Path, capsys) -> None:
        rundir = finished_package.make(tmp_path / "run")
        (tmp_path / "link").symlink_to(rundir.path)
        package(rundir.path, tmp_path / "link", "--out", tmp_path / "out", code=2)
        assert "is named twice" in capsys.readouterr().err

    def test_a_public_nothing(self, tmp_path: Path, capsys) -> None:
        package(finished_package.make(tmp_path / "run").path, "--out", tmp_path / "out", "--public", code=2)
        assert "add --push OWNER/NAME" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("text", ["50", "0MB", "MB", "1.5GB", "50MB\n"])
    def test_what_is_no_size(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not a size"):
            handover.size(text)

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path) -> None:
        """No file of the process may have more than 8 kB, which is how a quota looks from inside."""
        rundir = finished_package.make(tmp_path / "run")

        def small() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

        command = [sys.executable, "-m", "sysml_run.cli", "package", str(rundir.path), "--out", "out"]
        env = {**os.environ, "PYTHONPATH": str(RUNNER)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, preexec_fn=small)
        assert done.returncode == 1
        assert done.stderr == "error: out cannot be written: File too large\n  make room, or name another --out\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


class TestPython:
    """--python: pip installs it, and it says where the model is."""

    def test_pip_installs_it_and_it_finds_its_files(self, tmp_path: Path) -> None:
        rundir = finished_package.make(tmp_path / "run")
        package(rundir.path, "--out", tmp_path / "out", "--python")
        out = tmp_path / "out"
        assert verification.verify(out) == []
        assert verification.verify(out / "severity" / "model") == []
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
        subprocess.run([*build, "--wheel-dir", str(tmp_path / "wheels"), str(out)], check=True, capture_output=True)
        (wheel,) = (tmp_path / "wheels").iterdir()
        assert wheel.name == "severity-2026.11.5-py3-none-any.whl"
        code = "import severity; print(severity.path()); print(*severity.gguf()); print(severity.card()['name'])"
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "there")}
        install = [
            "pip",
            "install",
            "--no-deps",
            "--no-index",
            "--quiet",
            "--target",
            str(tmp_path / "there"),
            str(wheel),
        ]
        subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        model = tmp_path / "there" / "severity" / "model"
        assert done.stdout.split() == [str(model), str(model / "quantized" / "gguf-Q8_0" / "model.gguf"), "severity"]

    def test_a_gitignore_around_it_takes_nothing_away(self, tmp_path: Path) -> None:
        subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
        (tmp_path / ".gitignore").write_text("*.safetensors\n*.gguf\n")
        package(finished_package.make(tmp_path / "run").path, "--out", tmp_path / "out", "--python")
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
        command = [*build, "--wheel-dir", str(tmp_path / "wheels"), str(tmp_path / "out")]
        subprocess.run(command, check=True, capture_output=True)
        (wheel,) = (tmp_path / "wheels").iterdir()
        packed = zipfile.ZipFile(wheel).namelist()
        assert {"severity/model/model.safetensors", "severity/model/quantized/gguf-Q8_0/model.gguf"} <= set(packed)

    def test_what_is_printed_can_be_typed(self, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
        """`pip install out` would ask the index for a project called out."""
        rundir = finished_package.make(tmp_path / "run")
        monkeypatch.chdir(tmp_path)
        package(rundir.path, "--out", "my out", "--python")
        command, _, _ = capsys.readouterr().out.splitlines()[1].partition(", then: ")
        assert shlex.split(command) == ["pip", "install", str(tmp_path / "my out")]

    @pytest.mark.parametrize("name", ["torch", "json", "sysml-run", "huggingface_hub"])
    def test_no_known_module_is_taken_the_place_of(self, tmp_path: Path, name: str) -> None:
        package(finished_package.make(tmp_path / "run", name=name).path, "--out", tmp_path / "out", "--python")
        project = tomllib.loads((tmp_path / "out" / "pyproject.toml").read_text())["project"]
        assert project["name"] == f"model-{name.replace('_', '-')}"

    def test_in_pieces_its_page_says_nothing_of_joining(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(handover.UNITS, "MB", 4096)
        rundir = finished_package.make(tmp_path / "run")
        package(rundir.path, "--out", tmp_path / "out", "--python", "--pieces", "1MB")
        assert "join.py" not in (tmp_path / "out" / "README.md").read_text()

    def test_its_papers(self, tmp_path: Path, capsys) -> None:
        rundir = finished_package.make(tmp_path / "run", name="3 class")
        package(rundir.path, "--out", tmp_path / "out", "--python")
        assert "then: import model_3_class\n" in capsys.readouterr().out
        project = tomllib.loads((tmp_path / "out" / "pyproject.toml").read_text())["project"]
        assert (project["name"], project["version"]) == ("model-3-class", "2026.11.5")
        assert project["description"] == 'Severity of findings, "quoted"'
        assert project["optional-dependencies"]["transformers"] == ["torch", "transformers>=5.23.0"]
        card = (tmp_path / "out" / "README.md").read_text()
        assert card.startswith("---\nlicense: apache-2.0\n---\n\n`import model_3_class`: ")
        assert card.endswith("# A model\n")
        made = read_json(tmp_path / "out" / "manifest.json")
        assert made["module"] == "model_3_class"
        assert json.dumps(made).count(str(tmp_path)) == 0

    def test_of_several_runs_without_a_date(self, tmp_path: Path) -> None:
        runs = [finished_package.make(tmp_path / name, name=name, created=None) for name in ("class", "two")]
        package(*(run.path for run in runs), "--out", tmp_path / "out", "--python")
        project = tomllib.loads((tmp_path / "out" / "pyproject.toml").read_text())["project"]
        assert (project["name"], project["version"], project["description"]) == ("class-two", "0", "Models")
        assert (tmp_path / "out" / "class_two" / "model" / "two" / "model.safetensors").is_file()


def test_in_pieces_and_whole_again(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(handover.UNITS, "MB", 4096)
    rundir = finished_package.make(tmp_path / "run")
    package(rundir.path, "--out", tmp_path / "out", "--pieces", "1MB")
    said = capsys.readouterr().out
    assert "cut into pieces: model.safetensors, quantized/gguf-Q8_0/model.gguf; python join.py DIR makes" in said
    out = tmp_path / "out"
    assert max(path.stat().st_size for path in out.glob("*.piece-*")) == 4096
    assert verification.verify(out) == []
    page = (out / "README.md").read_text()
    assert page.startswith("---\nlicense: apache-2.0\n---\n\nLarge files are in pieces here. `python join.py DIR` ")
    assert page.endswith("# A model\n")
    done = subprocess.run([sys.executable, "join.py", str(tmp_path / "whole")], cwd=out, capture_output=True, text=True)
    whole = Path(done.stdout.strip())
    assert {name: (whole / name).read_bytes() for name in names(whole)} == {
        name: (rundir.package / name).read_bytes() for name in names(rundir.package)
    }
    assert [path.name for path in (tmp_path / "whole").iterdir()] == [whole.name]
    done = subprocess.run([sys.executable, "join.py"], cwd=out, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "usage: python join.py DIR")
