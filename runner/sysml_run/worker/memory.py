"""Running out of memory in training: told with the step and the batch at which it happened, and what takes less."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sysml_run import failures
from sysml_run.errors import StageError
from sysml_run.rundir import RunDir, read_json

from . import ranks


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
        hint = failures.smaller(read_json(rundir.recipe)["values"])
        raise StageError(f"out of memory {_when(trainer)}", hint) from error


def _when(trainer: Any) -> str:
    state = trainer.state
    if trainer.batch is None:
        return f"in the evaluation after step {state.global_step}" if state.global_step else "before the first step"
    rows, tokens = trainer.batch
    return f"in step {state.global_step + 1} of {state.max_steps}, with a batch of {rows} x {tokens:,} tokens"
