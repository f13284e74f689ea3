"""The processes that train together: which of them this is, what they agree on, and how they end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

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


def waited_for(done: Callable[[], bool]) -> None:
    """Return once the first process has done something that leaves a file; the launcher ends us if it fails."""
    while not done():
        time.sleep(0.2)


def any_of(flag: bool) -> bool:
    """Whether it is true in any process; each must ask at the same place."""
    return bool(total(float(flag))[0])


def total(*numbers: float) -> list[float]:
    """The sums over all processes; each must ask at the same place."""
    if world() == 1:
        return list(numbers)
    import torch

    sums = torch.tensor(numbers, dtype=torch.float64)
    torch.distributed.all_reduce(sums, group=_group())
    return list(sums.tolist())


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

    return torch.distributed.new_group(backend="gloo")
