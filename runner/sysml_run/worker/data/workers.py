"""One function over many pieces of work, in processes of their own, with the results in order."""

from __future__ import annotations

import gc
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, forkserver, get_context, parent_process
from typing import Any, TypeVar

from sysml_run.errors import StageError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

PRELOAD = ("transformers.models.auto.tokenization_auto", "sysml_run.worker.data.chunks", "sysml_run.worker.models")
LARGE = 2_000_000  # bytes of files that are worth other processes
MANY = 3  # processes that map rows faster than the one that reads them; two do not
AHEAD = 2  # pieces a process that are handed out before their results are taken
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def large(size: int) -> bool:
    """Whether so many bytes of files hold more rows than one process has done before others have begun."""
    return size > LARGE


def warm() -> None:
    """Start the server of processes beside whatever follows, so that its imports are done when it is needed."""
    get_context("forkserver").set_forkserver_preload(list(PRELOAD))
    forkserver.ensure_running()


def in_order(
    function: Callable[[Piece], Result],
    pieces: Iterable[Piece],
    processes: int,
    *,
    prepare: Callable[..., Any],
    given: Sequence[Any],
) -> Iterator[Result]:
    """`function` of each piece; every process calls `prepare(*given)` first and has the modules of PRELOAD at hand.

    Processes come from a server that imported the modules once, so that they share its memory. They end with the
    caller, however it ends. Raises what the function raises; StageError where a process is killed.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    work, waiting = iter(pieces), deque[Future[Result]]()
    pool = ProcessPoolExecutor(processes, context, begin, (prepare, given))
    try:
        waiting.extend(pool.submit(function, piece) for piece in islice(work, AHEAD * processes))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, piece) for piece in islice(work, 1))
            yield result
    except BrokenProcessPool as error:
        hint = "most often memory ran out; what is finished is kept, so start it again"
        raise StageError("a process that prepares rows was killed", hint) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def begin(prepare: Callable[..., Any], given: Sequence[Any]) -> None:
    """Set up a process: one thread each, and an end when the process that started it ends."""
    os.environ.update(ONE_THREAD)
    threading.Thread(target=follow, daemon=True).start()
    prepare(*given)
    gc.freeze()  # what is loaded stays, and rows are freed without the collector: a tenth of the time it would take
    gc.set_threshold(50_000)


def follow() -> None:
    """Leave with the parent, which may have been killed."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
