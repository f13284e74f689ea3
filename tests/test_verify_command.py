"""The command: what it prints, its exit codes, and its bar on a terminal."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysml_run import cli, manifest
from sysml_run.rundir import read_json, write_json

from . import finished_package

RUNNER = Path(cli.__file__).parents[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    finished_package.make(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run" / "package"


def test_every_byte_as_it_was_written(package: Path, capsys) -> None:
    assert cli.main(["verify", "run/package"]) == 0
    assert capsys.readouterr().out == "run/package: 4 files listed, 0.0 MB, every byte as it was written\n"


def test_one_flipped_bit_names_the_file(package: Path, capsys) -> None:
    weights = package / "quantized" / "gguf-Q8_0" / "model.gguf"
    data = bytearray(weights.read_bytes())
    data[7001] ^= 0x10
    weights.write_bytes(data)
    (package / "\x1b[2J").write_text("")
    assert cli.main(["verify", "run/package"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "run/package: 4 files listed, 2 not as written",
        "  ?[2J: extra",
        "  quantized/gguf-Q8_0/model.gguf: changed",
    ]


def test_as_data(package: Path, capsys) -> None:
    (package / "README.md").unlink()
    assert cli.main(["verify", "run/package", "run/package", "--format", "json"]) == 1
    first, second = json.loads(capsys.readouterr().out)["folders"]
    assert first == second
    assert (first["kind"], first["files"]) == ("package", 4)
    assert first["problems"] == [{"name": "README.md", "problem": "missing"}]


def test_a_name_that_no_file_can_have(package: Path, capsys) -> None:
    made = read_json(package / "manifest.json")
    made["files"]["\ud800"] = {"sha256": "0" * 64, "bytes": 1}
    (package / "manifest.json").write_text(json.dumps(made))
    (package / "SHA256SUMS").unlink()
    assert cli.main(["verify", "run/package"]) == 1
    assert "  ?: missing\n" in capsys.readouterr().out
    assert cli.main(["verify", "run/package", "--format", "json"]) == 1


def test_of_a_run_the_listed_files(package: Path, capsys) -> None:
    write_json(package.parent / "manifest.json", {"format": 1, "kind": "run", "files": {}})
    for path in package.parent.iterdir():
        if path.name in manifest.ARTIFACTS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (package.parent / "logs").mkdir()
    (package.parent / "logs" / "x").write_text("x")
    assert cli.main(["verify", "run"]) == 0
    assert capsys.readouterr().out == "run: 0 listed files, 0.0 MB, every byte as it was written\n"


def test_what_is_no_package(package: Path, capsys) -> None:
    for name, words in (
        ("run", "has no manifest.json"),
        ("nowhere", "is not there"),
        (sys.executable, "unpack it first"),
    ):
        assert cli.main(["verify", name]) == 2
        assert words in capsys.readouterr().err


def test_a_bar_on_a_terminal_and_only_there(package: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sysml_run.cli", "verify", str(package)]
    env = {**os.environ, "PYTHONPATH": str(RUNNER)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "% of 0.00 GB" in shown
    assert shown.endswith("\r\x1b[K")
    assert b"%" not in done.stdout
