"""The processes that train together: which of them this is, what they agree on, and how they end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, NoReturn

from sysml_run.errors import StageError

PATIENCE = 1800  # seconds that a process waits for the others: the saving of a large model takes minutes
DIE_WITH_PARENT = 1  # prctl(2): PR_SET_PDEATHSIG


def rank() -> int:
    """The number of this process among all, 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many there are, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this process is the one that writes and speaks for all."""
    return rank() == 0


def launched() -> bool:
    """Whether torch's launcher started this process, in a session of its own."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def tied() -> None:
    """End with the launcher: nobody else would stop a process in a session of its own. Linux only."""
    if launched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def untied() -> None:
    """Outlive the launcher from here on: it gives up, and takes us with it, at the third signal it is sent."""
    if launched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, 0)


def waited_for(done: Callable[[], bool]) -> None:
    """Return once the first process has done something that leaves a file; the launcher ends us if it fails."""
    while not done():
        time.sleep(0.2)


def any_of(flag: bool) -> bool:
    """Whether it is true in any process; each must ask at the same place."""
    return bool(total(float(flag))[0])


def total(*numbers: float) -> list[float]:
    """The sums over all processes; each must ask at the same place."""
    return _over_all(numbers, "SUM")


def highest(*numbers: float) -> list[float]:
    """The largest of each over all processes; each must ask at the same place."""
    return _over_all(numbers, "MAX")


def _over_all(numbers: Sequence[float], how: str) -> list[float]:
    if world() == 1:
        return list(numbers)
    import torch

    found = torch.tensor(numbers, dtype=torch.float64)
    torch.distributed.all_reduce(found, getattr(torch.distributed.ReduceOp, how), group=_group())
    return list(found.tolist())


def agree(versions: Mapping[str, str]) -> None:
    """Compare what is installed; each process must ask at the same place. Raises StageError where two differ."""
    if world() == 1:
        return
    import torch

    found: list[Any] = [None] * world()
    torch.distributed.all_gather_object(found, (socket.gethostname(), dict(versions)), group=_group())
    (host, wanted), *others = found
    for number, (there, other) in enumerate(others, start=1):
        differs = [name for name in {**wanted, **other} if name != "python" and wanted.get(name) != other.get(name)]
        if differs:
            ours, theirs = (
                ", ".join(f"{name} {each.get(name, '(none)')}" for name in differs) for each in (wanted, other)
            )
            message = f"process 0 on {host} has {ours}, and process {number} on {there} has {theirs}"
            pinned = " ".join(f"{name}=={wanted[name]}" for name in differs if name in wanted)
            raise StageError(message, f"install the same versions on every machine: pip install {pinned}")


def meet() -> None:
    """Wait until every process is here."""
    total(0.0)


def leave(code: int) -> NoReturn:
    """Exit without running down libraries' threads, which now and then abort a process that has done its work."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@cache
def _group() -> Any:
    """Processors only, so that asking does not wait for what the cards still compute."""
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=PATIENCE))
