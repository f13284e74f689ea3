"""Pushing to the hub, through the hub's own library and real HTTP: every byte arrives, and no word of the token."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysml_run import cli, push
from sysml_run.errors import UsageError
from sysml_run.rundir import RunDir

from . import finished_package, hub_to_push_to
from .hub_to_push_to import Hub

RUNNER = Path(cli.__file__).parents[1]
TOKEN = "hf_thistokenisfortestsandnothingelse"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_to_push_to.running() as hub:
        yield hub


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return finished_package.make(tmp_path / "run")


def pushed(rundir: RunDir, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with no settings of this machine's user."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    env = {**kept, "PYTHONPATH": str(RUNNER), "HF_HOME": str(rundir.path.parent / "home"), **env}
    env["HF_HUB_DISABLE_XET"] = "1"  # our hub speaks the plain protocol alone
    command = [sys.executable, "-m", "sysml_run.cli", "package", str(rundir.path), "--out", "out", *arguments]
    return subprocess.run(command, cwd=rundir.path.parent, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HUGGINGFACE_TOKEN"])
def test_every_byte_arrives_and_the_token_nowhere_else(rundir: RunDir, hub: Hub, variable: str) -> None:
    done = pushed(rundir, "--push", "ann/model", HF_ENDPOINT=hub.address, **{variable: TOKEN})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"pushed to {hub.address}/ann/model\n")
    out = rundir.path.parent / "out"
    assert hub.files == {
        path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert hub.made["visibility" if "visibility" in hub.made else "private"] in ("private", True)
    assert TOKEN not in done.stdout + done.stderr
    assert not [path for path in out.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_a_token_from_its_file_and_a_public_repository(rundir: RunDir, hub: Hub) -> None:
    home = rundir.path.parent / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN)
    done = pushed(rundir, "--push", "ann/model", "--public", HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    assert hub.made.get("visibility", hub.made.get("private")) in ("public", False, None)
    assert hub.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "the token is refused"), (403, "the token may not write there"), (507, "the hub answers 507")],
)
def test_a_refusal_in_our_own_words(rundir: RunDir, hub: Hub, status: int, words: str) -> None:
    hub.status = status
    done = pushed(rundir, "--push", "ann/model", HF_ENDPOINT=hub.address, HF_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (1, f"error: ann/model was not pushed: {words}\n  the package is in out\n")


@pytest.mark.parametrize(("private", "options"), [(False, []), (True, ["--public"])])
def test_a_repository_that_everybody_sees_or_nobody_is_not_pushed_to(
    rundir: RunDir, hub: Hub, private: bool, options: list[str]
) -> None:
    """The hub leaves one that is there as it is, whatever is asked for."""
    hub.private = private
    done = pushed(rundir, "--push", "ann/model", *options, HF_ENDPOINT=hub.address, HF_TOKEN=TOKEN)
    assert done.returncode == 1
    assert f"it is there and {'private, with' if private else 'public, without'} --public" in done.stderr
    assert hub.files == {}
    hub.private = not private
    assert pushed(rundir, "--push", "ann/model", *options, HF_ENDPOINT=hub.address, HF_TOKEN=TOKEN).returncode == 0
    assert hub.files


def test_nobody_answers(rundir: RunDir) -> None:
    with hub_to_push_to.running() as gone:
        address = gone.address
    done = pushed(rundir, "--push", "ann/model", HF_ENDPOINT=address, HF_TOKEN=TOKEN)
    assert done.returncode == 1
    assert "ann/model was not pushed: the hub cannot be reached (" in done.stderr
    assert TOKEN not in done.stderr


REFUSED = {
    "ann": ({"HF_TOKEN": TOKEN}, "--push ann is no repository of the hub"),
    "ann/a": ({"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set: nothing is pushed"),
    "ann/-a": ({"HF_TOKEN": TOKEN}, "--push ann/-a is no repository of the hub: "),
    "ann/b": ({}, "no token of the hub is set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_before_anything_is_packed(rundir: RunDir, name: str) -> None:
    env, words = REFUSED[name]
    done = pushed(rundir, "--push", name, **env)
    assert done.returncode == 2
    assert words in done.stderr
    assert not (rundir.path.parent / "out").exists()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_hooks", [])
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    with pytest.raises(UsageError, match="takes huggingface_hub, not installed here"):
        push.ready("ann/model")
