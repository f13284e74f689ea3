"""Why a stage failed, in one plain message: what libraries and launchers leave in a log, and what helps."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StageError
from .rundir import RunDir, read_json

LONGEST = 300  # characters of a library's words that are shown
LAST = 400  # lines of a log that are looked through
NO_CARD = "add --hardware cpu --smoke to try every stage on a processor; sysml-run doctor RECIPE says what is here"
SEVERAL = ("hung", "meeting", "network", "lost")
ALONE = "look in the log for the process that ended first; sysml-run --resume goes on from the last checkpoint"


@dataclass(frozen=True)
class Failure:
    """`pattern` is looked for in `Type: message` of an exception, or in the log of a process that left no word.

    What processes do to each other is only looked for where `several` train together.
    """

    name: str
    pattern: re.Pattern[str]
    message: str
    hint: str
    several: bool


def _row(name: str, pattern: str, message: str, hint: str) -> Failure:
    return Failure(name, re.compile(pattern, re.IGNORECASE), message, hint, name in SEVERAL)


MEMORY = _row(
    "memory",
    r"OutOfMemoryError|out of memory|can't allocate memory|\bMemoryError|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory",
    "out of memory",
    "",  # what takes less depends on the recipe
)
FAILURES = (  # the first that matches
    MEMORY,
    _row(
        "driver",
        r"driver on your system is too old|driver version is insufficient|forward compatibility was attempted",
        "the card's driver is older than what this torch is built for",
        "update the driver (nvidia-smi shows which it is), or install a torch built for it (pytorch.org/get-started)",
    ),
    _row(
        "card",
        r"not compiled with CUDA|Found no NVIDIA driver|No CUDA GPUs|no CUDA-capable device|doesn't support bf16/gpu",
        "the recipe trains on a card, and torch sees none here",
        NO_CARD,
    ),
    _row(
        "nccl",
        r"NCCL built in|libnccl[.\w]*: (?:cannot open|undefined)|undefined symbol: nccl",
        "this torch has no NCCL, through which cards talk to each other",
        "install torch for CUDA on Linux: pip install --force-reinstall torch; or train on one card without DeepSpeed",
    ),
    _row(
        "hung",
        r"Watchdog caught collective|Timed out waiting \d+ ?ms|wait timeout after \d+|Timeout\(ms\)=",
        "a process of the run hung: the others waited for it in vain",
        f"a full disk, a frozen machine or a lost network are usual causes; {ALONE}",
    ),
    _row(
        "meeting",
        r"waiting for clients|client socket has timed out|failed to connect to|RendezvousTimeout|EADDRINUSE",
        "the processes of the run did not find each other",
        "the first machine must be reachable at MASTER_ADDR and MASTER_PORT, and every machine started within minutes",
    ),
    _row("network", r"NCCL error|nccl(?:System|Remote|Internal)Error", "the cards lost touch with each other", ALONE),
    _row(
        "lost",
        r"Connection closed by peer|Connection reset by peer|Broken pipe",
        "another process of the run ended, and this one cannot go on without it",
        ALONE,
    ),
)

# One process in the report of torch's launcher that a signal ended.
REPORTED = re.compile(r"rank\s*: (\d+)[^\[]*Signal \d+ \((SIG\w+)\) received")

# What a process says that another one left behind, whose end is the cause.
FOLLOWING = tuple(row.message for row in FAILURES if row.name in ("network", "lost"))


def known(text: str, *, several: bool) -> Failure | None:
    """The row that a text matches; `several` processes train together."""
    return next((row for row in FAILURES if (several or not row.several) and row.pattern.search(text)), None)


def words(error: BaseException, recipe: Mapping[str, Any] | None, *, several: bool) -> tuple[str, str | None]:
    """Message and hint for an exception that a library raised; `recipe` is what the run's recipe.json holds."""
    said = f"{type(error).__name__}: {error}"
    row = known(said, several=several)
    if row is None:
        return said, None
    helps = (smaller(recipe) if recipe else None) if row is MEMORY else row.hint
    return row.message, "\n".join(filter(None, [helps, _quoted(said)]))


def _quoted(said: str) -> str:
    """The library's own words, on a line."""
    line = " ".join(said.split())
    return f"its words: {line[:LONGEST]}{'…' * (len(line) > LONGEST)}"


def smaller(recipe: Mapping[str, Any], batch: tuple[int, int] | None = None) -> str:
    """What takes less memory, as `plan --fit` has it, below what the run took that failed; else every way there is.

    `recipe` is what its recipe.json holds, `batch` the rows and tokens at which memory ran out, where that is known.
    """
    from . import fit, fitview, machine  # for this alone, which few runs come to
    from .outlook import amount
    from .resolve import Resolved, build

    settled = Resolved(build(recipe["values"]), dict(recipe["values"]), dict(recipe.get("sources", {})))
    found = fit.find(settled, machine.look(), failed=True, batch=batch)
    enough = found is not None and found.enough
    changes = found.changes if found and enough else fit.listed(settled)
    lines = ["what takes less memory, the cheapest first:", *fitview.table(changes)]
    if found and enough:
        sizes = (amount(each.estimate.total) for each in (found.before, found.after))
        lines += [f"estimated on each device: {' -> '.join(sizes)}", f"type {fitview.typed(changes)}"]
    else:
        lines.append("try one after the other: --set KEY=VALUE")
    return "\n".join(lines)


def failure(stage: str, code: int, rundir: RunDir, begin: int = 0) -> StageError:
    """What to tell the user: the worker's own words where it left some, and always the log.

    `begin` are the bytes of the log that are of earlier attempts.
    """
    log, said = rundir.log(stage), tail(rundir.log(stage), LAST, begin)
    left = read_json(rundir.error) if rundir.error.is_file() else {}
    fell = left.get("message") in (None, *FOLLOWING)  # over another's end
    ended = killed(code, said, others=fell)
    row = known(said, several=several(stage, rundir))
    follows = ended is not None and (ended[1] == "SIGKILL" or left.get("message") in FOLLOWING)
    if left.get("message") and not follows:
        message, hint = f"{stage} failed: {left['message']}", left.get("hint")
    elif ended is not None:
        message, hint = _ended(stage, *ended, row, rundir)
    elif row is not None:
        message, hint = f"{stage} failed: {row.message}", _from_log(row, said, rundir)
    else:
        return StageError(f"{stage} failed with exit code {code}", f"log: {log}\n{tail(log, begin=begin)}")
    return StageError(message, "\n".join(filter(None, [hint, f"log: {log}"])))


def several(stage: str, rundir: RunDir) -> bool:
    """Whether more than one process runs the stage, as far as the run's recipe can be read."""
    try:
        hardware = read_json(rundir.recipe)["values"]["hardware"]
        alone = hardware["accelerator"] != "tpu" and hardware["devices"] * hardware.get("nodes", 1) == 1
    except (OSError, ValueError, TypeError, KeyError):
        alone = False
    return stage == "train" and not alone


def killed(code: int, said: str, *, others: bool = True) -> tuple[str, str] | None:
    """Which process a signal ended, and the signal's name; None where none did. `said` is the end of the log.

    Of several processes the others then fail too, for want of the first. torch's launcher names the root cause last,
    and takes one at random for it where it sees two at the same look: `others` are asked too.
    """
    if code < 0 or code == 128 + signal.SIGKILL:
        number = code - 128 if code > 0 else -code
        return "", next((each.name for each in signal.Signals if each == number), f"signal {number}")
    behind = re.search(r"died with <Signals\.(SIG\w+)", "\n".join(said.splitlines()[-1:]))
    if behind:
        return "", behind[1]
    _, _, report = said.rpartition("Failures:")
    beside, _, cause = report.partition("Root Cause")
    found = REPORTED.search(cause) or (REPORTED.search(beside) if others else None)
    return (f"process {found[1]} of ", found[2]) if found else None


def _ended(stage: str, which: str, name: str, row: Failure | None, rundir: RunDir) -> tuple[str, str | None]:
    if name == "SIGKILL":
        helps = _smaller(rundir) if stage == "train" else None
        return f"{which}{stage} was killed, most likely for lack of memory", helps
    if row is not None and row is not MEMORY:  # NCCL ends a process that waited in vain
        return f"{stage} failed: {row.message}", row.hint
    return f"{which}{stage} was ended by {name}", None


def _from_log(row: Failure, said: str, rundir: RunDir) -> str:
    line = next(line for line in said.splitlines() if row.pattern.search(line))
    return "\n".join(filter(None, [row.hint or _smaller(rundir), _quoted(line)]))


def _smaller(rundir: RunDir) -> str | None:
    try:
        return smaller(read_json(rundir.recipe), _batch(rundir))
    except (OSError, ValueError, KeyError, TypeError):  # a recipe of another version too
        return None


def _batch(rundir: RunDir) -> tuple[int, int] | None:
    """Rows and tokens at which memory ran out, where a worker could still say so."""
    events = rundir / "events.jsonl"
    lines = events.read_text(encoding="utf-8").splitlines() if events.is_file() else []
    said = [event for event in map(json.loads, lines) if event["event"] == "out_of_memory" and event["rows"]]
    return (said[-1]["rows"], said[-1]["tokens"]) if said else None


def tail(log: Path, lines: int = 15, begin: int = 0) -> str:
    """The last lines of a log, of what stands behind its first `begin` bytes."""
    return "\n".join(log.read_bytes()[begin:].decode("utf-8", errors="replace").splitlines()[-lines:])
