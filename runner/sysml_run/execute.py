"""A plan -> processes: one after the other, with their output on screen and in logs, and stopped cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from .backends.base import Launch
from .errors import StageError
from .rundir import RunDir, read_json
from .runs import set_state

GRACE_SECONDS = 20.0


def run(launches: Sequence[Launch], rundir: RunDir, lock: int) -> None:
    """Run what is not done yet. Raises StageError when a stage fails, KeyboardInterrupt when the user stops it."""
    for launch in launches:
        if rundir.done(launch.stage):
            continue
        set_state(rundir, "running", launch.stage)
        rundir.error.unlink(missing_ok=True)
        try:
            code = start(launch, rundir.log(launch.stage), lock)
        except KeyboardInterrupt:
            set_state(rundir, "interrupted", launch.stage)
            raise
        if code != 0 or not rundir.done(launch.stage):
            set_state(rundir, "failed", launch.stage)
            raise failure(launch.stage, code, rundir)


def start(launch: Launch, log: Path, lock: int) -> int:
    """Run one process in a session of its own; its standard output goes to the screen and the log, the rest to the log.

    A signal to stop is passed on to the whole session, which is killed when it does not end in 20 seconds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = _terminal() if sys.stdout.isatty() else os.pipe()
    with log.open("ab") as file:
        process = subprocess.Popen(
            launch.argv,
            env={**os.environ, **launch.env},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=file,
            start_new_session=True,
            pass_fds=(lock,),
        )
        os.close(theirs)
        relay = threading.Thread(target=_relay, args=(ours, file), daemon=True)
        relay.start()
        try:
            code = process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise
        finally:
            relay.join(timeout=5)
    return code


def failure(stage: str, code: int, rundir: RunDir) -> StageError:
    """What to tell the user: the worker's own words where it left some, and always the log."""
    log = rundir.log(stage)
    if rundir.error.is_file():
        left = read_json(rundir.error)
        hint = "\n".join(filter(None, [left.get("hint"), f"log: {log}"]))
        return StageError(f"{stage} failed: {left['message']}", hint)
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return StageError(f"{stage} was killed, most likely for lack of memory", f"log: {log}")
    return StageError(f"{stage} failed with exit code {code}", f"log: {log}\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def _terminal() -> tuple[int, int]:
    """A pseudo-terminal as large as ours, so that progress bars draw as they would in it."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, termios.tcgetwinsize(sys.stdout.fileno()))
    return ours, theirs


def _relay(source: int, log: IO[bytes]) -> None:
    """Copy bytes to the screen and the log until the process has closed its end."""
    screen: IO[bytes] | None = sys.stdout.buffer
    while True:
        try:
            data = os.read(source, 65536)
        except OSError:  # a pseudo-terminal whose other end is closed
            data = b""
        if not data:
            os.close(source)
            return
        log.write(data)
        log.flush()
        if screen is not None:
            screen = _show(screen, data)


def _show(screen: IO[bytes], data: bytes) -> IO[bytes] | None:
    try:
        screen.write(data)
        screen.flush()
    except BrokenPipeError:  # the reader of our output is gone; the run goes on, and the log has it all
        return None
    return screen


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
