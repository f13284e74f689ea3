"""What is known of a TPU slice by the name a recipe gives it, such as `v3-8`: its chips, hosts and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UsageError

GIB = 2**30
NAME = re.compile(r"(v(?:2|3|4|5e|5litepod|5p|6e)|tpu7x)-([1-9][0-9]{0,4})")


@dataclass(frozen=True)
class Generation:
    """Of one chip: `cores` that the number in a slice's name counts, `devices` that XLA sees, memory in bytes, TFLOP/s
    in bf16. `host` is the chips of one machine of several, `alone` those that one machine may have by itself, and
    `several` the sizes in chips beyond them.
    """

    cores: int
    devices: int
    memory: int
    peak: int
    host: int
    alone: tuple[int, ...]
    several: tuple[int, ...] | range
    source: str


@dataclass(frozen=True)
class Slice:
    """`devices` are what weights are divided among, over all `hosts`; `memory` in bytes and `peak` TFLOP/s of each."""

    name: str
    generation: str
    chips: int
    hosts: int
    devices: int
    memory: int
    peak: float


DOCS = "cloud.google.com/tpu/docs"
POD = (16, 32, 64, 128, 256)
GENERATIONS: Mapping[str, Generation] = {
    "v2": Generation(2, 2, 16 * GIB, 46, 4, (4,), (16, 64, 128, 256), f"{DOCS}/v2"),
    "v3": Generation(2, 2, 32 * GIB, 123, 4, (4,), (*POD, 512, 1024), f"{DOCS}/v3"),
    "v4": Generation(2, 1, 32 * GIB, 275, 4, (4,), range(8, 4097, 4), f"{DOCS}/v4"),
    "v5e": Generation(1, 1, 16 * GIB, 197, 4, (1, 4, 8), POD, f"{DOCS}/v5e"),
    "v5p": Generation(2, 1, 95 * GIB, 459, 4, (4,), range(8, 6145, 4), f"{DOCS}/v5p"),
    "v6e": Generation(1, 1, 32 * GIB, 918, 4, (1, 4, 8), POD, f"{DOCS}/v6e"),
    "tpu7x": Generation(2, 2, 192 * GIB, 2307, 4, (4,), range(8, 9217, 4), f"{DOCS}/tpu7x"),
}
OTHER_NAMES = {"v5litepod": "v5e"}


def find(name: str) -> Slice:
    """The slice of a name that the schema allows. Raises UsageError for a size that there is not."""
    found = NAME.fullmatch(name)
    assert found, name
    short = OTHER_NAMES.get(found[1], found[1])
    kind, number = GENERATIONS[short], int(found[2])
    chips, rest = divmod(number, kind.cores)
    if rest or chips not in (*kind.alone, *kind.several):
        raise UsageError(f"there is no slice {name}", f"write one of {', '.join(names(short))}")
    hosts = 1 if chips in kind.alone else chips // kind.host
    each = chips * kind.devices
    return Slice(name, short, chips, hosts, each, kind.memory // kind.devices, kind.peak / kind.devices)


def names(generation: str) -> list[str]:
    """The names of a generation's slices, of many the smallest."""
    kind = GENERATIONS[generation]
    sizes = (*kind.alone, *kind.several)
    return [f"{generation}-{chips * kind.cores}" for chips in sizes[:8]] + (["…"] if len(sizes) > 8 else [])
