"""The memory that training takes: as predicted, as measured, and told with step and batch where it ran out."""

from __future__ import annotations

import re
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sysml_run import estimate, failures, machine
from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json

from . import ranks

STATUS = Path("/proc/self/status")


@contextmanager
def told(rundir: RunDir, trainer: Any) -> Iterator[None]:
    """Raises StageError in place of a library's words for it, which stay in the log; an event has the figures."""
    try:
        yield
    except Exception as error:
        if failures.known(f"{type(error).__name__}: {error}", several=False) is not failures.MEMORY:
            raise
        traceback.print_exc()
        rows, tokens = trainer.batch or (None, None)
        step = trainer.state.global_step + (trainer.batch is not None)
        rundir.event("out_of_memory", step=step, rows=rows, tokens=tokens, process=ranks.rank())
        hint = failures.smaller(read_json(rundir.recipe), trainer.batch)
        raise StageError(f"out of memory {_when(trainer)}", hint) from error


def predicted(recipe: Recipe) -> dict[str, Any] | None:
    """What `plan` says of the run as it is settled: bytes of each part, their `total`, and the `band` around it."""
    found = estimate.of(recipe, machine.look())
    return None if found is None else asdict(found) | {"total": found.total}


def record(trainer: Any, expected: dict[str, Any] | None) -> dict[str, Any]:
    """For the train record: `predicted` for rows of `sequence_len`, `measured`, and the tokens of the longest row."""
    return {"predicted": expected, "measured": measured(), "longest_row": max(trainer.lengths)}


def measured() -> dict[str, int]:
    """The most bytes held at one time so far, by the process or card that held most; every process must ask.

    `process` is resident memory. On cards `allocated` is in tensors and `reserved` what torch took for them, and `card`
    adds what the driver and its libraries hold now, and others on the same card. torch_xla 2.9 tells nothing of devices
    that one program is spread over.
    """
    import torch

    found = {"process": resident()}
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        reserved, beside = torch.cuda.max_memory_reserved(), whole - free - torch.cuda.memory_reserved()
        found |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": reserved, "card": reserved + beside}
    return dict(zip(found, map(int, ranks.highest(*found.values())), strict=True))


def resident() -> int:
    """Bytes of memory that this process held at most.

    On Linux from /proc: getrusage(2) counts what the process that started this one held, where that was more.
    """
    if STATUS.is_file():
        high = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
        if high:
            return int(high[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _when(trainer: Any) -> str:
    state = trainer.state
    if trainer.batch is None:
        return f"in the evaluation after step {state.global_step}" if state.global_step else "before the first step"
    rows, tokens = trainer.batch
    return f"in step {state.global_step + 1} of {state.max_steps}, with a batch of {rows} x {tokens:,} tokens"
