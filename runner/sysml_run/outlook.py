"""What a plan will need, in values and in words: memory and whether it fits, time, and room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import schedule
from .estimate import disk, hours
from .estimate.disk import Disk
from .estimate.hours import Hours
from .estimate.verdict import PARTS, Verdict, verdict
from .machine import Machine
from .measures import duration
from .plan import batch
from .prepared import Counted
from .recipe import Recipe

GB, MB = 1e9, 1e6
NO_MODEL = "the model's sizes are not at hand, or its architecture is none that is known here"
NO_CARD = "hardware.type does not say how much memory the card has, as l4-24gb does"


@dataclass(frozen=True)
class Outlook:
    """None where the model is not known; `stages` are bytes of the machine's memory that those after training take.

    `teacher` are bytes of its weights, all devices together; None without one, and where it is not known.
    """

    verdict: Verdict | None
    hours: Hours | None
    disk: Disk | None
    stages: Mapping[str, int]
    teacher: int | None = None


def look(recipe: Recipe, machine: Machine, counted: Counted | None) -> Outlook:
    """Of a settled recipe; rows are `counted` where they were prepared on this machine."""
    sizes = batch(recipe)
    mean, most = hours.tokens(recipe, sizes, counted)
    steps = schedule.steps(counted.rows["train"] if counted else None, sizes, recipe)
    found = hours.hours(recipe, machine, sizes, mean or most, steps.total if steps else None)
    return Outlook(verdict(recipe, machine), found, disk.needed(recipe), disk.memory(recipe), disk.teacher(recipe))


def values(found: Outlook) -> dict[str, Any]:
    """`memory`, `time` and `disk` of the plan contract; null where the model is not known. GB = 1e9 bytes."""
    later = {
        "stages_host_gb": {stage: gb(size) for stage, size in found.stages.items()},
        "teacher_gb": None if found.teacher is None else gb(found.teacher),
    }
    return {
        "memory": found.verdict and memory(found.verdict) | later,
        "time": found.hours and time(found.hours),
        "disk": found.disk and {f"{name}_gb": gb(size) for name, size in room(found.disk).items()},
    }


def memory(found: Verdict) -> dict[str, Any]:
    """`fits` asks whether the upper end of the band does; null where the device's memory is not known."""
    each = {part: gb(getattr(found.estimate, part)) for part in PARTS}
    return {
        "available_gb": None if found.available is None else gb(found.available),
        "per_device_gb": {**each, "total": gb(found.estimate.total)},
        "host_gb": gb(found.estimate.host),
        "fits": None if found.word is None else found.word == "fits",
        "verdict": found.word,
        "band": found.estimate.band,
        "dominates": found.dominates,
    }


def time(found: Hours) -> dict[str, Any]:
    """Ranges from the fastest to the slowest; null where the devices' rate, or the number of rows, is not known."""
    return {
        "tokens_per_step": found.tokens,
        "flops_per_step": float(f"{found.flops:.4g}"),
        "flops": None if found.steps is None else float(f"{found.flops * found.steps:.4g}"),
        "seconds_per_step": found.seconds and [float(f"{each:.3g}") for each in found.seconds],
        "hours": found.hours and [float(f"{each:.3g}") for each in found.hours],
        "why": found.why,
    }


def room(found: Disk) -> dict[str, int]:
    """Every part, and what the run's folder grows to."""
    return {**asdict(found), "run": found.run}


def lines(found: Outlook) -> Iterator[str]:
    """Two blanks in front, as the rest of a plan has."""
    if found.verdict is None:
        yield f"  memory  not known: {NO_MODEL}"
        return
    unknown = f"; {NO_CARD}" if found.verdict.word is None else ""
    yield f"  memory  {judged(found.verdict)}, most of it {found.verdict.dominates}{unknown}"
    each = (f"{part} {getattr(found.verdict.estimate, part) / GB:.2f}" for part in PARTS)
    yield f"          {'  '.join(each)} GB at the peak"
    if words := host(found.verdict):
        yield f"          {words}"
    if found.teacher is not None:
        yield f"          the teacher's weights take {amount(found.teacher)} of all devices together, before training"
    if found.hours:
        yield from _time(found.hours)
    if found.disk:
        yield from _disk(found.disk)
    if found.stages:
        size = max(found.stages.values())
        takes = "takes" if len(found.stages) == 1 else "take"
        yield f"  later   {' and '.join(found.stages)} {takes} {amount(size)} of the machine's memory"


def judged(found: Verdict) -> str:
    """`fits: 22.3 GB (18.9 to 25.6) of 85.5 GB on each device`."""
    low, high = found.ends
    said = f"{amount(found.estimate.total)} ({number(low, high)} to {number(high, high)})"
    if found.word is None:
        return f"{said} on each device"
    return f"{found.word}: {said} of {amount(found.available or 0)} on each device"


def host(found: Verdict) -> str:
    """`96.4 GB of each machine's own memory, for what is offloaded`; empty where nothing is."""
    size = found.estimate.host
    return f"{amount(size)} of each machine's own memory, for what is offloaded" if size else ""


def _time(found: Hours) -> Iterator[str]:
    step = f"{found.flops:.2g} operations for the {found.tokens:,} tokens of a step"
    if found.seconds is None:
        yield f"  time    {step}; {found.why}"
        return
    each = f"{duration(found.seconds[0])} to {duration(found.seconds[1])} a step"
    if found.hours is None:
        yield f"  time    {each}; how many is not known before the rows are counted"
    else:
        first, last = (3600 * size for size in found.hours)
        yield f"  time    {duration(first)} to {duration(last)} for {found.steps:,} steps, {each}"
    yield f"          {step}, at {found.why}"


def _disk(found: Disk) -> Iterator[str]:
    parts = [f"{name} {amount(size)}" for name, size in asdict(found).items() if size and name not in AWAY]
    away = [f"{words} {amount(getattr(found, name))}" for name, words in AWAY.items() if getattr(found, name)]
    yield f"  disk    {amount(found.run)} in the run's folder: {', '.join(parts)}"
    if away:
        yield f"          and {', '.join(away)}"


AWAY = {"download": "in the hub's cache", "published": "in artifacts.dir"}


def amount(size: float) -> str:
    """Decimal units: `93.4 GB`, `120 MB`."""
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{size / MB:.1f} MB"


def number(size: float, beside: float) -> str:
    """In the unit that `amount` gives the one beside it."""
    return f"{size / GB:.1f}" if beside >= 0.1 * GB else f"{size / MB:.1f}"


def gb(size: int) -> float:
    """Decimal gigabytes to the megabyte."""
    return round(size / GB, 3)
