"""Checksums of packages and runs: what differs is named; the run's manifest says what made it."""

import os
import subprocess
from pathlib import Path

import pytest

from sysml_run import manifest, verification
from sysml_run.rundir import RunDir, read_json, write_json, write_text

from . import finished_run

SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "empty").write_bytes(b"")
    (folder / "inner" / "weights").write_bytes(b"\x00" * 5000)
    manifest.write(folder, {"name": "x"})
    return folder


def git(folder: Path, *words: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, env={**os.environ, **who}, check=True, capture_output=True, text=True).stdout.strip()


def test_every_file_is_listed(package: Path) -> None:
    made = read_json(package / "manifest.json")
    assert (made["format"], made["kind"], made["name"]) == (1, "package", "x")
    assert list(made["files"]) == ["empty", "inner/weights"]
    assert made["files"]["empty"] == {"sha256": SHA256_OF_NOTHING, "bytes": 0}
    assert verification.verify(package) == []


def test_sha256sum_agrees(package: Path) -> None:
    (package / "back\\slash").write_text("odd")
    (package / "line\nbreak").write_text("odd")
    manifest.write(package, {})
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=package, check=True)
    assert verification.verify(package) == []


class TestOfARun:
    def test_says_what_made_it(self, tmp_path: Path) -> None:
        _, rundir = finished_run.make(tmp_path)
        made = manifest.write_run(rundir)
        assert made == read_json(rundir / "manifest.json")
        assert made["name"] == "quickstart"
        assert made["created"] == finished_run.STARTED.format(1)
        assert made["base_model"]["license"] == "apache-2.0"
        assert made["data"] == [{"name": "findings.tar.gz", "bytes": 48213, "sha256": "ab" * 32}]
        assert made["recipe_sha256"] == manifest.sha256(rundir.recipe)
        assert {"python", "torch", "transformers"} <= set(made["versions"])
        assert made["hardware"]["cores"] >= 1
        assert made["git"] is None
        assert {"recipe.json", "metrics.jsonl", "evaluation.json", "records/train.json"} <= set(made["files"])

    def test_logs_and_what_is_half_written_are_no_artifacts(self, tmp_path: Path) -> None:
        _, rundir = finished_run.make(tmp_path)
        for name in ("events.jsonl", "status.json", "logs/train.log", "checkpoints/checkpoint-1/x", "model/.partial-1"):
            write_text(rundir / name, "x")
        files = manifest.write_run(rundir)["files"]
        assert not [name for name in files if name.startswith(("events", "status", "logs", "checkpoints", "model"))]
        assert verification.verify(rundir.path) == []

    def test_changes_are_found(self, tmp_path: Path) -> None:
        _, rundir = finished_run.make(tmp_path)
        manifest.write_run(rundir)
        write_text(rundir / "events.jsonl", "more")
        assert verification.verify(rundir.path) == []
        write_text(rundir.metrics, "")
        write_text(rundir.model / "x", "")
        assert verification.verify(rundir.path) == ["metrics.jsonl: changed", "model/x: extra"]

    def test_a_run_without_records_has_one_too(self, tmp_path: Path) -> None:
        rundir = RunDir(tmp_path)
        write_json(rundir.recipe, {"values": {"name": "x", "model": {"base_model": "a/b"}}, "sources": {}})
        made = manifest.write_run(rundir)
        assert made["base_model"] == {"name": "a/b"}
        assert (made["created"], made["data"], made["git"]) == (None, [], None)

    def test_the_commit_of_the_recipe(self, tmp_path: Path) -> None:
        _, rundir = finished_run.make(tmp_path)
        here = tmp_path / "here"
        git(here, "init", "--quiet")
        assert manifest.write_run(rundir)["git"] is None
        git(here, "commit", "--quiet", "--allow-empty", "--message", "none of it")
        commit = git(here, "rev-parse", "HEAD")
        assert manifest.write_run(rundir)["git"] == {"commit": commit, "clean": False}
        git(here, "add", "quickstart.yaml", "findings.tar.gz")
        git(here, "commit", "--quiet", "--message", "all of it")
        commit = git(here, "rev-parse", "HEAD")
        assert manifest.write_run(rundir)["git"] == {"commit": commit, "clean": True}
        (here / "findings.tar.gz").write_bytes(b"other rows")
        assert manifest.write_run(rundir)["git"] == {"commit": commit, "clean": False}

    def test_a_recipe_edited_since_vouches_for_no_commit(self, tmp_path: Path) -> None:
        _, rundir = finished_run.make(tmp_path)
        here = tmp_path / "here"
        git(here, "init", "--quiet")
        git(here, "add", ".")
        git(here, "commit", "--quiet", "--message", "x")
        with (here / "quickstart.yaml").open("a") as file:
            file.write("\n")
        assert manifest.write_run(rundir)["git"] is None

    def test_without_git_it_is_null(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, rundir = finished_run.make(tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert manifest.write_run(rundir)["git"] is None
