"""Preparing in chunks: the same bytes from any number of processes, and a killed run that goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sysml_run.errors import DataError, StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare
from sysml_run.worker.data import chunks, spool, store, workers

Make = Callable[..., Recipe]
TOP = Path(__file__).parents[3]


@pytest.fixture
def recipe(make_recipe: Make, tmp_path: Path) -> Recipe:
    rows = [{"prompt": f"What is {i % 90}?", "completion": f"It is {i % 7}."} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = [{"path": str(tmp_path / "rows.jsonl"), "type": "prompt_completion"}]
    return make_recipe(datasets=data, split={"validation": 0.2, "group_by": "prompt"})


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def prepared(recipe: Recipe, rundir: RunDir) -> dict[str, bytes]:
    prepare.run(recipe, rundir)
    return contents(store.load(rundir).path)


@pytest.fixture
def whole(recipe: Recipe, tmp_path: Path, cache: Path) -> dict[str, bytes]:
    """The set as one process makes it in one go."""
    found = prepared(recipe, RunDir(tmp_path / "whole"))
    for path in (cache / "prepared").iterdir():
        path.rename(tmp_path / f"away-{path.name}")
    return found


@pytest.mark.slow
def test_the_same_bytes_from_any_number_of_processes(
    recipe: Recipe, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    monkeypatch.setattr(chunks, "SMALL", 0)
    found = []
    for processes in (1, 4):
        monkeypatch.setattr(workers, "cores", lambda count=processes: count)
        found.append(prepared(recipe, RunDir(tmp_path / f"{processes}")))
        (cache / "prepared").rename(tmp_path / f"away-{processes}")
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def rows(files: dict[str, bytes], split: str) -> list[dict[str, Any]]:
    import pyarrow as pa

    with pa.ipc.open_stream(files[f"{split}/{store.ARROW}"]) as stream:
        found: list[dict[str, Any]] = stream.read_all().to_pylist()
    return found


def killed(recipe: Recipe, folder: Path, after: int) -> None:
    """Prepare in a process that kills itself in the middle of the chunk `after`."""
    code = [
        "import json, os, sys; from pathlib import Path",
        "from sysml_run import resolve; from sysml_run.rundir import RunDir",
        "from sysml_run.worker import prepare; from sysml_run.worker.data import chunks",
        "chunks.ROWS, left, fingerprint = 16, [int(sys.argv[3])], chunks.fingerprint",
        "def fatal(path):",
        "    left[0] -= 1",
        "    return os.kill(os.getpid(), 9) if left[0] < 0 else fingerprint(path)",
        "chunks.fingerprint = fatal",
        "prepare.run(resolve.build(json.loads(sys.argv[1])), RunDir(Path(sys.argv[2])))",
    ]
    argv = [sys.executable, "-c", "\n".join(code), json.dumps(asdict(recipe)), str(folder), str(after)]
    env = os.environ | {"PYTHONPATH": "runner", "OMP_NUM_THREADS": "1"}
    assert subprocess.run(argv, env=env, cwd=TOP, check=False).returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_and_trusts_nothing_unfinished(
    recipe: Recipe,
    whole: dict[str, bytes],
    rundir: RunDir,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed(recipe, tmp_path / "killed", 5)
    (work,) = (cache / "prepared").glob(".partial-work-*")
    made = sorted(path.name for path in (work / "chunks").iterdir())
    assert made == [f"{n:06}.{kind}" for n in range(5) for kind in ("arrow", "json")] + ["000005.part"]
    damaged, other, bare = (work / "chunks" / f"{n:06}.arrow" for n in (1, 2, 3))
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"12345678")
    other.write_bytes(other.read_bytes()[:100])
    bare.with_suffix(".json").unlink()
    monkeypatch.setattr(chunks, "ROWS", 16)
    done: list[str] = []
    make = chunks.make
    monkeypatch.setattr(chunks, "make", lambda chunk: (done.append(chunk.path.stem), make(chunk))[1])
    found = prepared(recipe, rundir)
    assert done == [f"{n:06}" for n in (1, 2, 3, *range(5, 13))]
    printed = capsys.readouterr().out
    assert "going on; 200 rows were read before" in printed
    assert "32 of 200 rows were tokenized before" in printed
    assert found["report.json"] == whole["report.json"]
    assert all(rows(found, name) == rows(whole, name) for name in store.SPLITS)
    assert not work.exists()


@pytest.mark.parametrize("name", ["rows.jsonl", "exact.npy", "intake.json"])
def test_a_first_pass_that_is_not_whole_is_made_again(
    recipe: Recipe, whole: dict[str, bytes], rundir: RunDir, tmp_path: Path, cache: Path, name: str
) -> None:
    killed(recipe, tmp_path / "killed", 1)
    (work,) = (cache / "prepared").glob(".partial-work-*")
    (work / name).write_bytes((work / name).read_bytes()[:-1])
    assert prepared(recipe, rundir)["report.json"] == whole["report.json"]


def test_work_of_other_sets_is_removed_once_it_is_old(recipe: Recipe, rundir: RunDir, cache: Path) -> None:
    old, new = (cache / "prepared" / f".partial-work-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    prepare.run(recipe, rundir)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_set_that_fails_leaves_no_work(make_recipe: Make, recipe: Recipe, rundir: RunDir, cache: Path) -> None:
    data = [asdict(each) for each in recipe.datasets]
    with pytest.raises(DataError, match=r"has 2\d tokens"):
        prepare.run(make_recipe(datasets=data, prompt={"sequence_len": 8, "truncation": "error"}), rundir)
    assert [path.name for path in (cache / "prepared").iterdir() if path.suffix != ".lock"] == []


def test_spooled_lines_are_found_again(tmp_path: Path) -> None:
    values = [["a", [{"role": "user", "content": "ä\n"}]], ["b", []], ["c", None]]
    with spool.Spool(tmp_path / "rows") as rows:
        offsets = [rows.write(json.dumps(value, ensure_ascii=False).encode()) for value in values]
    assert list(spool.read(tmp_path / "rows", offsets)) == values
    assert list(spool.read(tmp_path / "rows", offsets[::-2])) == values[::-2]


def remember(value: int) -> None:
    os.environ["SYSML_TEST_VALUE"] = str(value)


def act(piece: str) -> str:
    """What a worker is told to do."""
    if piece == "fail":
        raise DataError("it failed", "mend it")
    if piece == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == "slow":
        time.sleep(0.3)
    return f"{piece} {os.environ['SYSML_TEST_VALUE']} {os.environ['TOKENIZERS_PARALLELISM']} {os.getpid()}"


def start(pieces: list[str]) -> list[list[str]]:
    found = workers.in_order(act, pieces, 2, prepare=remember, given=(7,))
    return [line.split() for line in found]


def test_results_come_in_order_from_other_processes() -> None:
    found = start(["slow", "a", "b", "slow", "c", "d", "e"])
    assert [line[:3] for line in found] == [[name, "7", "false"] for name in ("slow", "a", "b", "slow", "c", "d", "e")]
    assert str(os.getpid()) not in {line[3] for line in found}


def test_what_goes_wrong_in_a_process_is_raised() -> None:
    with pytest.raises(DataError, match="it failed") as caught:
        start(["a", "fail", "b"])
    assert caught.value.hint == "mend it"
    with pytest.raises(StageError, match="a process that prepares rows was killed"):
        start(["a", "die", "b"])


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    code = [
        "import os, sys, time; from sysml_run.worker.data import workers",
        "def wait(path): open(f'{path}/{os.getpid()}', 'w').close(); time.sleep(60)",
        "if __name__ == '__main__':",
        "    list(workers.in_order(wait, [sys.argv[1]] * 2, 2, prepare=print, given=()))",
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join(code))
    (tmp_path / "pids").mkdir()
    argv = [sys.executable, str(script), str(tmp_path / "pids")]
    process = subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(TOP / "runner")})
    wait(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
    process.kill()
    process.wait()
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    wait(lambda: not any(alive(pid) for pid in pids))


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_report_counts_what_chunks_counted(recipe: Recipe, rundir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    prepare.run(recipe, rundir)
    report = read_json(rundir.data / "report.json")
    assert report["end_tokens"] == {"<|im_end|>": 200}
    assert sum(split["rows"] for split in report["splits"].values()) == 200
