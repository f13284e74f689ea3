"""What is known of a card by the name a recipe gives it, such as `h100-80gb`: the catalogue's, else what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from . import resources

GB, MIB = 10**9, 2**20
TERA = 10**12
MEMORY = re.compile(r"(?:^|[-_])([1-9][0-9]*)gb$")


@dataclass(frozen=True)
class Card:
    """Bytes of `memory` as its driver shows them, `peak` operations a second on 16-bit numbers, `bandwidth` bytes a
    second; an `old` one came before Ampere, and with it before bf16 and flash attention.
    """

    name: str
    memory: int
    peak: float
    bandwidth: float
    old: bool
    source: str


def find(name: str | None) -> Card | None:
    """The card of this name; one without its memory behind it is known where there is but one size."""
    rows, wanted = catalogue(), (name or "").lower()
    sizes = [row for row in rows.values() if MEMORY.sub("", row.name) == wanted]
    return rows.get(wanted) or (sizes[0] if len(sizes) == 1 else None)


def known(name: str) -> bool:
    """Whether there is a card of this name, with or without its memory behind it."""
    return name.lower() in catalogue() or any(MEMORY.sub("", each) == name.lower() for each in catalogue())


def ampere(name: str | None) -> bool:
    """Whether a card may have what came with Ampere, bf16 and flash attention: False for those known to be older."""
    model = MEMORY.sub("", (name or "").lower())
    return not any(row.old and MEMORY.sub("", row.name) == model for row in catalogue().values())


def memory(name: str | None) -> int | None:
    """Bytes of a card's memory: the driver's figure, else what its name ends with; None where it does not."""
    card, found = find(name), MEMORY.search((name or "").lower())
    return card.memory if card else int(found[1]) * GB if found else None


def names() -> tuple[str, ...]:
    """Of all cards in the catalogue."""
    return tuple(catalogue())


@cache
def catalogue() -> Mapping[str, Card]:
    """The cards of catalogue/hardware.json, whose head says what its numbers are."""
    rows = json.loads((resources.PACKAGE / "catalogue" / "hardware.json").read_text(encoding="utf-8"))["cards"]
    return {
        name: Card(
            name,
            row["memory"] * MIB if row["memory"] else int(MEMORY.findall(name)[0]) * GB,
            row["tflops"] * TERA,
            row["gb_s"] * GB,
            row.get("old", False),
            row["source"],
        )
        for name, row in rows.items()
    }
