"""Files and folders are there whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sysml_run import rundir
from sysml_run.rundir import RunDir, read_json, sweep, whole_folder, write_json, write_text


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_name_is_inside_the_directory(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    names = [name for name, each in vars(RunDir).items() if isinstance(each, property)]
    assert {"recipe", "model", "merged", "package", "error", "metrics"} <= set(names)
    paths = [getattr(run, name) for name in names] + [run.log("train"), run.record("train"), run / "x"]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(tmp_path) and path != tmp_path for path in paths)


def test_a_record_says_that_a_stage_is_done(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not run.done("train")
    write_json(run.record("train"), {"über": [1, None]})
    assert run.done("train")
    assert read_json(run.record("train")) == {"über": [1, None]}
    assert "über" in run.record("train").read_text(encoding="utf-8")


def test_events_are_lines_in_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.event("started", stage="train")
    run.event("finished", stage="train", seconds=1.5)
    first, second = (json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines())
    assert (first["event"], second["seconds"]) == ("started", 1.5)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(first["time"])).total_seconds()) < 60


def test_a_text_replaces_the_old_one_and_can_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "a/b.txt"
    write_text(path, "old")
    write_text(path, "neu ü")
    assert path.read_text(encoding="utf-8") == "neu ü"
    assert mode(path) == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["b.txt"]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    with pytest.raises(TypeError):
        write_json(path, object())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with whole_folder(final) as folder:
        assert not final.exists()
        assert folder.name.startswith(rundir.PARTIAL)
        (folder / "deep").mkdir()
        (folder / "deep/file").write_text("x")
        (folder / "deep/file").chmod(0o600)
    assert (final / "deep/file").read_text() == "x"
    assert (mode(final), mode(final / "deep/file")) == (0o755, 0o644)
    with whole_folder(final) as folder:
        (folder / "other").write_text("y")
    assert [each.name for each in final.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_is_not_finished_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "model"
    with whole_folder(final) as folder:
        (folder / "file").write_text("old")

    def fail() -> None:
        with whole_folder(final) as folder:
            (folder / "file").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert (final / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


WRITER = """
import sys
from pathlib import Path
from sysml_run.rundir import whole_folder, write_text
folder = Path(sys.argv[1])
for number in range(10_000):
    write_text(folder / "file", f"{number}" * 20_000)
    with whole_folder(folder / "model") as staging:
        for name in "abc":
            (staging / name).write_text(str(number))
"""


def test_a_writer_that_is_killed_leaves_whole_files_and_what_sweep_removes(tmp_path: Path) -> None:
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": str(Path(rundir.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], env=env)
    end = time.monotonic() + 30
    while not (tmp_path / "model").exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    text = (tmp_path / "file").read_text()
    assert text == text[: len(text) // 20_000] * 20_000
    sweep(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} <= {"file", "model"}
    if (tmp_path / "model").exists():  # between the old folder and the new one there is a moment without
        assert {each.name for each in (tmp_path / "model").iterdir()} == {"a", "b", "c"}
        assert len({each.read_text() for each in (tmp_path / "model").iterdir()}) == 1
