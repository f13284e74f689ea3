"""A plan -> processes: one after the other, with their output on screen and in logs, and stopped cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .backends.base import PLACE, Launch, shell
from .errors import StageError
from .failures import failure
from .rundir import RunDir, read_json
from .runs import set_state

# Signal, and the seconds it is given: a training step on a slow machine, and its checkpoint, take minutes.
# A second SIGINT says "at once" to a worker; SIGTERM does not, for a scheduler may send it several times.
PATIENCE = ((signal.SIGINT, 300.0), (signal.SIGINT, 10.0), (signal.SIGKILL, 5.0))
STOPPED = 130  # a worker's exit code when it was asked to stop
LAST_WORDS = 5.0  # seconds that what a finished process left behind may go on writing


def run(launches: Sequence[Launch], rundir: RunDir, lock: int) -> None:
    """Run what is not done yet. Raises StageError when a stage fails, KeyboardInterrupt when the user stops it."""
    with _stoppable():
        for launch in launches:
            if rundir.done(launch.stage):
                sys.stdout.write(f"{launch.stage}: done before\n")
            else:
                _stage(launch, rundir, lock)


def start(launch: Launch, log: Path, lock: int) -> int:
    """Run one process in a session of its own; its standard output goes to the screen and the log, the rest to the log.

    A signal to stop is passed on to the whole session, which is killed when it does not end in time; a second one
    does not wait. Raises StageError when there is no such program.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    ours, theirs = _terminal() if sys.stdout.isatty() else os.pipe()
    relay = threading.Thread(target=_relay, args=(ours, log), daemon=True)
    relay.start()
    try:
        process = _spawn(launch, theirs, log, lock)
    finally:
        os.close(theirs)
    try:
        code = process.wait()
        relay.join(PATIENCE[0][1] if -code in (signal.SIGINT, signal.SIGTERM) else LAST_WORDS)
    except KeyboardInterrupt:
        _stop(process, relay)
        raise
    return code


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal stop a run as Ctrl-C does; what is ignored (nohup) stays ignored."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stage(launch: Launch, rundir: RunDir, lock: int) -> None:
    set_state(rundir, "running", launch.stage)
    rundir.error.unlink(missing_ok=True)
    log = rundir.log(launch.stage)
    begin = log.stat().st_size if log.is_file() else 0  # earlier attempts are in it too
    try:
        code = start(launch, log, lock)
    except StageError:
        set_state(rundir, "failed", launch.stage)
        raise
    if code == STOPPED or _stopped(rundir):
        raise KeyboardInterrupt
    if code != 0 or not rundir.done(launch.stage):
        set_state(rundir, "failed", launch.stage)
        raise failure(launch.stage, code, rundir, begin)


def _spawn(launch: Launch, output: int, log: Path, lock: int) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        try:
            return subprocess.Popen(
                _words(launch),
                env={**os.environ, **launch.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=file,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError as error:
            message = f"{launch.stage}: cannot start {launch.argv[0]}: {error.strerror}"
            raise StageError(message, "install it beside this Python: pip install 'sysml-run[train]'") from error


def _words(launch: Launch) -> Sequence[str]:
    """The program and its arguments, or a shell that fills in where this machine stands among several."""
    if set(launch.argv).isdisjoint(PLACE.values()):
        return launch.argv
    return ("/bin/sh", "-c", f"exec {shell(launch.argv)}")


def _stop(process: subprocess.Popen[bytes], relay: threading.Thread) -> None:
    """Ask the session to end, then make it; a second Ctrl-C goes on to the next way without waiting."""
    for number, patience in PATIENCE:
        try:
            os.killpg(process.pid, number)
            if _ended(process, relay, patience):
                return
        except KeyboardInterrupt:
            continue
        except ProcessLookupError:
            return


def _ended(process: subprocess.Popen[bytes], relay: threading.Thread, patience: float) -> bool:
    """Whether everything that holds the output has ended in time: `accelerate launch` dies before what it started."""
    end = time.monotonic() + patience
    relay.join(patience)
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return not relay.is_alive()


def _terminal() -> tuple[int, int]:
    """A pseudo-terminal as large as ours, so that progress bars draw as they would in it."""
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST  # a line ends as it was written; our own terminal adds what it needs
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    termios.tcsetwinsize(theirs, termios.tcgetwinsize(sys.stdout.fileno()))
    return ours, theirs


def _relay(source: int, log: Path) -> None:
    """Copy bytes to the screen and the log until the other end is closed; one that fails does not stop the run."""
    with log.open("ab", buffering=0) as file:
        sinks: list[IO[bytes]] = [file, sys.stdout.buffer]
        while data := _read(source):
            sinks = [sink for sink in sinks if _written(sink, data)]
    os.close(source)


def _read(source: int) -> bytes:
    try:
        return os.read(source, 65536)
    except OSError:  # a pseudo-terminal whose other end is closed
        return b""


def _written(sink: IO[bytes], data: bytes) -> bool:
    """False when the reader of our output has gone, the disk is full, or we are ending."""
    try:
        sink.write(data)
        sink.flush()
    except (OSError, ValueError):
        return False
    return True


def _stopped(rundir: RunDir) -> bool:
    """Whether the worker was asked to stop by somebody else, such as a cluster's scheduler, and left word of it."""
    return rundir.error.is_file() and bool(read_json(rundir.error).get("interrupted"))
