"""The run directory: its names, whole-or-nothing writes, stage records and events."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


@dataclass(frozen=True)
class RunDir:
    """One run's directory; every name in it is given here and nowhere else."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def recipe(self) -> Path:
        """`recipe.json`: the resolved values and the source of each."""
        return self.path / "recipe.json"

    @property
    def data(self) -> Path:
        """Holds `prepared.json` (a pointer into the cache) and `report.json`."""
        return self.path / "data"

    @property
    def launch(self) -> Path:
        """Generated configuration files and command lines, rerunnable by hand."""
        return self.path / "launch"

    @property
    def checkpoints(self) -> Path:
        """One `checkpoint-STEP` folder for each kept step."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained adapter, or the full weights when there is no adapter."""
        return self.path / "model"

    @property
    def merged(self) -> Path:
        """Adapter and base in one set of weights."""
        return self.path / "merged"

    @property
    def quantized(self) -> Path:
        """One folder for each quantized copy."""
        return self.path / "quantized"

    @property
    def package(self) -> Path:
        """What is handed over: loads offline, with card and checksums."""
        return self.path / "package"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def tracking(self) -> Path:
        """One folder for each experiment tracker, in its own form."""
        return self.path / "tracking"

    @property
    def evaluation(self) -> Path:
        """Before and after, as one JSON object."""
        return self.path / "evaluation.json"

    @property
    def error(self) -> Path:
        """What a failed worker left for the front to show."""
        return self.path / "error.json"

    @property
    def at_work(self) -> Path:
        """Locked by the process that runs a stage, as long as it lives."""
        return self.path / ".worker.lock"

    def log(self, stage: str) -> Path:
        """Everything the stage's process printed."""
        return self.path / "logs" / f"{stage}.log"

    def record(self, stage: str) -> Path:
        """A stage with this file is done and is not redone."""
        return self.path / "records" / f"{stage}.json"

    def done(self, stage: str) -> bool:
        return self.record(stage).exists()

    def event(self, kind: str, **facts: Any) -> None:
        """Append one line to `events.jsonl`: time (UTC), kind and facts."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **facts})
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the final name only when the block ends well; an older one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{PARTIAL}{path.name}-"))
    try:
        yield staging
        publish(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def publish(staging: Path, path: Path) -> None:
    """Flush a finished folder and give it its final name in one rename; an older one is moved away first, whole."""
    for file in sorted(staging.rglob("*")):
        if file.is_file():
            file.chmod(0o644)
            sync(file)
    staging.chmod(0o755)
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{PARTIAL}{path.name}-old-"))
    if path.exists():
        path.replace(old)
    staging.replace(path)
    sync(path.parent)
    shutil.rmtree(old)


def lock(path: Path) -> int | None:
    """A descriptor that holds the file's lock until it is closed, or None while another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(path: Path) -> None:
    """Remove what an interrupted write left under temporary names."""
    for left in sorted(path.rglob(f"{PARTIAL}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
