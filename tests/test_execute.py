"""Stages as real processes: where their output goes, how they fail, and how they are stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sysml_run import execute, runs
from sysml_run.backends.base import PLACE, Launch
from sysml_run.errors import StageError
from sysml_run.rundir import RunDir

RUNNER = Path(execute.__file__).parents[1]
DONE = (
    "import os, sys; os.makedirs(f'{RUN}/records', exist_ok=True); open(f'{RUN}/records/{STAGE}.json', 'w').close()\n"
)


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    path = tmp_path / "run"
    path.mkdir()
    return RunDir(path)


@pytest.fixture
def stage(rundir: RunDir) -> Callable[..., Launch]:
    """A stage that runs a few lines of Python and, unless they end it first, leaves its record."""

    def make(name: str, code: str = "", env: dict[str, str] | None = None) -> Launch:
        head = f"RUN, STAGE = {str(rundir.path)!r}, {name!r}\nimport os, signal, subprocess, sys, time\n"
        return Launch(name, (sys.executable, "-u", "-c", f"{head}{code}\n{DONE}"), env or {})

    return make


def run(rundir: RunDir, *launches: Launch) -> None:
    with runs.owned(rundir) as lock:
        execute.run(launches, rundir, lock)


def test_output_goes_to_screen_and_log_and_errors_to_the_log(rundir: RunDir, stage, capfd) -> None:
    run(rundir, stage("one", "print('said'); time.sleep(0.2); sys.stderr.write('noted\\n')"))
    assert capfd.readouterr() == ("said\n", "")
    assert sorted(rundir.log("one").read_text().splitlines()) == ["noted", "said"]


def test_output_comes_after_what_was_printed_before(rundir: RunDir, stage, tmp_path: Path) -> None:
    """Standard output of the front is a file here, so it is written in blocks."""
    with (tmp_path / "screen").open("w+") as screen:
        front(rundir, stage("one", "print('second')"), stdout=screen, before="print('first')").wait(30)
    assert (tmp_path / "screen").read_text() == "first\nsecond\n"


def test_stages_follow_each_other_and_what_is_done_is_not_redone(rundir: RunDir, stage) -> None:
    order = rundir / "order"
    note = f"open({str(order)!r}, 'a').write(STAGE + ' ')"
    run(rundir, stage("one", note), stage("two", note))
    run(rundir, stage("one", note), stage("two", note), stage("three", note))
    assert order.read_text() == "one two three "
    assert runs.state(rundir) == {"state": "running", "stage": "three", "pid": os.getpid()}


def test_a_stage_sees_its_environment_and_no_input(rundir: RunDir, stage, capfd) -> None:
    code = "print(os.environ['MINE'], 'PATH' in os.environ, repr(sys.stdin.read()))"
    run(rundir, stage("one", code, {"MINE": "a b"}))
    assert capfd.readouterr().out == "a b True ''\n"


def test_a_stage_inherits_the_lock(rundir: RunDir, stage, capfd) -> None:
    with runs.owned(rundir) as lock:
        code = f"print(os.path.samestat(os.fstat({lock}), os.stat(RUN + '/.lock')))"
        execute.run([stage("one", code)], rundir, lock)
    assert capfd.readouterr().out == "True\n"


@pytest.mark.parametrize(
    "code", ["sys.exit(130)", """open(f"{RUN}/error.json", "w").write('{"interrupted": true}'); sys.exit(1)"""]
)
def test_a_stage_that_somebody_else_has_stopped_interrupts_the_run(code: str, rundir: RunDir, stage) -> None:
    """A cluster's scheduler may ask the worker itself; `accelerate launch` does not pass on its exit code."""
    with pytest.raises(KeyboardInterrupt):
        run(rundir, stage("one", code))
    assert runs.state(rundir)["state"] == "interrupted"
    run(rundir, stage("one"))


def test_one_of_several_machines_finds_its_place(rundir: RunDir, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import sys; print(sys.argv[1:])\nRUN, STAGE = {str(rundir.path)!r}, 'one'\n{DONE}"
    place = [word for pair in PLACE.items() for word in pair]
    monkeypatch.setenv("SLURM_NODEID", "3")
    monkeypatch.setenv("MASTER_ADDR", "a b")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    run(rundir, Launch("one", (sys.executable, "-c", code, *place, "$HOME")))
    shown = ["--machine_rank", "3", "--main_process_ip", "a b", "--main_process_port", "29500", "$HOME"]
    assert capfd.readouterr().out == f"{shown}\n"


def failed(rundir: RunDir, *launches: Launch) -> StageError:
    with pytest.raises(StageError) as error:
        run(rundir, *launches)
    assert runs.state(rundir)["state"] == "failed"
    return error.value


def test_a_failure_in_the_workers_own_words(rundir: RunDir, stage) -> None:
    left = {"stages": ["one"], "message": "no rows", "hint": "add some"}
    error = failed(rundir, stage("one", f"open(RUN + '/error.json', 'w').write({json.dumps(left)!r}); sys.exit(1)"))
    assert error.message == "one failed: no rows"
    assert error.hint == f"add some\nlog: {rundir.log('one')}"


def test_a_failure_without_words_shows_the_end_of_the_log(rundir: RunDir, stage) -> None:
    rundir.error.write_text('{"message": "of an earlier try"}')
    code = "print(*range(30), sep='\\n'); time.sleep(0.3); raise ValueError('deep inside')"
    error = failed(rundir, stage("one", code), stage("two", "open(RUN + '/two', 'w')"))
    assert error.message == "one failed with exit code 1"
    hint = str(error.hint).splitlines()
    assert hint[0] == f"log: {rundir.log('one')}"
    assert hint[-1] == "ValueError: deep inside"
    assert len(hint) == 16
    assert not (rundir / "two").exists()


def test_a_stage_that_leaves_no_record_has_failed(rundir: RunDir, stage) -> None:
    assert failed(rundir, stage("one", "sys.exit(0)")).message == "one failed with exit code 0"


def test_a_killed_stage(rundir: RunDir, stage) -> None:
    error = failed(rundir, stage("one", "os.kill(os.getpid(), signal.SIGKILL)"))
    assert error.message == "one was killed, most likely for lack of memory"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            "traceback : Signal 9 (SIGKILL) received by PID 7",
            "process 1 of one was killed, most likely for lack of memory",
        ),
        ("traceback : To enable traceback see …", "one failed: ConnectionError: the other one has gone"),
    ],
)
def test_one_of_several_processes_was_killed(cause: str, words: str, rundir: RunDir, stage) -> None:
    """The others fail for want of it, and torch's launcher names what came first under the last heading."""
    left = '{"message": "ConnectionError: the other one has gone", "hint": null}'
    said = f"Failures:\n  <NO_OTHER_FAILURES>\nRoot Cause (first observed failure):\n[0]:\n  rank : 1 (0)\n  {cause}"
    code = f"open(RUN + '/error.json', 'w').write({left!r}); sys.stderr.write({said!r}); sys.exit(1)"
    assert failed(rundir, stage("one", code)).message == words


def test_a_stage_killed_behind_a_launcher(rundir: RunDir, stage) -> None:
    """`accelerate launch` ends with code 1 and an exception when what it started was killed."""
    child = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    error = failed(rundir, stage("one", f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"))
    assert error.message == "one was killed, most likely for lack of memory"


def test_a_program_that_is_not_there(rundir: RunDir) -> None:
    error = failed(rundir, Launch("train", ("/nowhere/accelerate", "launch")))
    assert error.message == "train: cannot start /nowhere/accelerate: No such file or directory"
    assert "pip install" in str(error.hint)


def test_a_full_disk_does_not_hang_a_stage(stage, capfd) -> None:
    assert execute.start(stage("one", "print('x' * 300_000)"), Path("/dev/full"), 0) == 0
    assert len(capfd.readouterr().out) == 300_001


def test_a_process_left_behind_is_not_waited_for_long(
    rundir: RunDir, stage, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setattr(execute, "LAST_WORDS", 0.2)
    child = "import time; time.sleep(1); print('late', flush=True)"
    started = time.monotonic()
    run(rundir, stage("one", f"print('early'); subprocess.Popen([sys.executable, '-c', {child!r}])"))
    assert time.monotonic() - started < 1
    assert capfd.readouterr().out == "early\n"
    said: list[str] = []
    wait_for(lambda: said.append(capfd.readouterr().out) or "".join(said) == "late\n")
    assert rundir.log("one").read_text() == "early\nlate\n"


FRONT = """
import sys
from pathlib import Path
from sysml_run import execute, runs
from sysml_run.backends.base import PLACE, Launch
from sysml_run.rundir import RunDir
{before}
rundir = RunDir(Path({path!r}))
try:
    with runs.owned(rundir) as lock:
        execute.run([Launch({stage!r}, {argv!r})], rundir, lock)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    STARTED.clear()
    yield
    for process in STARTED:
        process.kill()
        process.wait()


STARTED: list[subprocess.Popen[bytes]] = []


def front(rundir: RunDir, launch: Launch, before: str = "", **options) -> subprocess.Popen[bytes]:
    """A process of its own that runs one stage, as the command does."""
    code = FRONT.format(before=before, path=str(rundir.path), stage=launch.stage, argv=launch.argv)
    env = {**os.environ, "PYTHONPATH": str(RUNNER)}
    STARTED.append(subprocess.Popen([sys.executable, "-c", code], env=env, **options))
    return STARTED[-1]


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


SAVES = """
def save(number, frame):
    time.sleep(0.7)
    open(RUN + '/saved', 'w').close()
    sys.exit(0)
signal.signal(signal.SIGINT, save)
open(RUN + '/up', 'w').close()
time.sleep(60)
"""
LEFT = "open(RUN + '/error.json', 'w').write('{\"interrupted\": true}'); sys.exit(130)"
LAUNCHER = """
subprocess.Popen([sys.executable, '-c', HEAD + {child!r}]).wait()
"""


def launcher(rundir: RunDir, stage, child: str) -> Launch:
    """A stage that starts another process and, as `accelerate launch` does, dies of the signal before that one."""
    head = f"RUN = {str(rundir.path)!r}\nimport os, signal, sys, time\n"
    return stage("train", f"HEAD = {head!r}\n{LAUNCHER.format(child=child)}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_reaches_the_grandchild_which_gets_time_to_save(rundir: RunDir, stage, number: signal.Signals) -> None:
    process = front(rundir, launcher(rundir, stage, SAVES), stdout=subprocess.DEVNULL)
    wait_for((rundir / "up").exists)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert (rundir / "saved").exists()
    assert runs.state(rundir)["state"] == "interrupted"
    with runs.owned(rundir):
        pass


def test_under_nohup_a_closed_terminal_stops_nothing(rundir: RunDir, stage) -> None:
    code = "open(RUN + '/up', 'w').close()\nwhile not os.path.exists(RUN + '/end'): time.sleep(0.01)"
    process = front(rundir, stage("one", code), before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    wait_for((rundir / "up").exists)
    process.send_signal(signal.SIGHUP)
    (rundir / "end").touch()
    assert process.wait(30) == 0


IGNORES = """
for number in ({numbers}): signal.signal(number, lambda *_: open(RUN + '/heard', 'w').close())
open(RUN + '/up', 'w').close()
while True: time.sleep(60)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_second_and_a_third_ctrl_c_do_not_wait(rundir: RunDir, stage, times: int) -> None:
    """The stage ends at the one after so many."""
    ends = f"signal.signal(signal.SIGINT, signal.SIG_DFL if {times} == 1 else heard)"
    code = f"def heard(*_):\n    open(RUN + '/heard', 'w').close()\n    {ends}\nsignal.signal(signal.SIGINT, heard)"
    code += "\nopen(RUN + '/up', 'w').close()\nwhile True: time.sleep(60)"
    process = front(rundir, stage("one", code), stdout=subprocess.DEVNULL)
    wait_for((rundir / "up").exists)
    started = time.monotonic()
    for _ in range(times):
        (rundir / "heard").unlink(missing_ok=True)
        process.send_signal(signal.SIGINT)
        wait_for((rundir / "heard").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert time.monotonic() - started < 9


def test_a_launcher_that_is_stopped_by_somebody_else_leaves_its_worker_time_to_save(rundir: RunDir, stage) -> None:
    """A scheduler asks every process of a stage and not us; `accelerate launch` is gone before what it started."""
    child = SAVES.replace("SIGINT", "SIGTERM").replace("sys.exit(0)", LEFT).replace("0.7", str(execute.LAST_WORDS + 1))
    process = front(rundir, launcher(rundir, stage, child), stdout=subprocess.DEVNULL)
    wait_for((rundir / "up").exists)
    for each in psutil.Process(process.pid).children(recursive=True):
        each.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert runs.state(rundir)["state"] == "interrupted"


def test_a_stage_that_does_not_end_is_killed(rundir: RunDir, stage) -> None:
    before = "import signal; execute.PATIENCE = ((signal.SIGINT, 0.2), (signal.SIGINT, 0.2), (signal.SIGKILL, 5.0))"
    code = IGNORES.format(numbers="signal.SIGINT, signal.SIGTERM")
    process = front(rundir, stage("one", code), before=before, stdout=subprocess.DEVNULL)
    wait_for((rundir / "up").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_a_reader_that_goes_away_does_not_stop_the_run(rundir: RunDir, stage) -> None:
    code = "print('first')\nwhile not os.path.exists(RUN + '/gone'): time.sleep(0.01)\nprint('x' * 200_000)"
    process = front(rundir, stage("one", code), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    (rundir / "gone").touch()
    process.wait(30)
    assert rundir.done("one")
    assert len(rundir.log("one").read_text()) == len("first\n") + 200_001
    assert process.stderr is not None
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()


def test_on_a_terminal_a_stage_has_a_terminal_too(rundir: RunDir, stage) -> None:
    code = "print(sys.stdout.isatty(), *os.get_terminal_size(1)); print('bar\\rBAR')"
    code += "\ntime.sleep(0.2); sys.stderr.write('noted\\n')"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (33, 101))
    process = front(rundir, stage("one", code), stdout=theirs)
    os.close(theirs)
    seen = b""
    while data := execute._read(ours):
        seen += data
    os.close(ours)
    assert process.wait(30) == 0
    assert seen == b"True 101 33\r\nbar\rBAR\r\n"
    assert set(rundir.log("one").read_bytes().split(b"\n")) == {b"True 101 33", b"bar\rBAR", b"noted", b""}


def test_ctrl_c_typed_on_a_terminal(rundir: RunDir, stage) -> None:
    """The terminal sends SIGINT to the front's group only; the stage's session hears of it from the front."""
    code = FRONT.format(before="", path=str(rundir.path), stage="train", argv=launcher(rundir, stage, SAVES).argv)
    pid, ours = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(RUNNER)})
    wait_for((rundir / "up").exists)
    os.write(ours, b"\x03")
    while execute._read(ours):
        pass
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert (rundir / "saved").exists()
