"""What is known of a card by the name a recipe gives it, such as `h100-80gb`."""

from __future__ import annotations

import re
from collections.abc import Mapping

GB = 10**9
MEMORY = re.compile(r"(?:^|[-_])([1-9][0-9]*)gb$")

OLD: Mapping[str, tuple[int, ...]] = {  # before Ampere: no bf16, and no flash attention; sizes of memory in GB
    "p100": (12, 16),
    "v100": (16, 32),
    "t4": (16,),
    "rtx2080ti": (11,),
    "titanrtx": (24,),
}
CARDS: Mapping[str, tuple[int, ...]] = {
    **OLD,
    "a10": (24,),
    "a10g": (24,),
    "a30": (24,),
    "a40": (48,),
    "a100": (40, 80),
    "a6000": (48,),
    "b200": (180, 192),
    "b300": (288,),
    "gh200": (96, 144),
    "h20": (96, 141),
    "h100": (80, 94),
    "h200": (141,),
    "h800": (80,),
    "l4": (24,),
    "l40": (48,),
    "l40s": (48,),
    "mi210": (64,),
    "mi250": (128,),
    "mi300x": (192,),
    "mi325x": (256,),
    "rtx3060": (8, 12),
    "rtx3080": (10, 12),
    "rtx3090": (24,),
    "rtx4080": (16,),
    "rtx4090": (24,),
    "rtx5080": (16,),
    "rtx5090": (32,),
}
NAMES = tuple(f"{model}-{size}gb" for model, sizes in CARDS.items() for size in sizes)


def known(name: str) -> bool:
    """Whether there is a card of this name, with or without its memory behind it."""
    return name.lower() in NAMES or name.lower() in CARDS


def ampere(name: str | None) -> bool:
    """Whether a card may have what came with Ampere, bf16 and flash attention: False for those known to be older."""
    return name is None or MEMORY.sub("", name.lower()) not in OLD


def memory(name: str | None) -> int | None:
    """Bytes of a card's memory, which its name ends with (GB = 1e9 bytes); None where it does not."""
    found = MEMORY.search(name.lower()) if name else None
    return int(found[1]) * GB if found else None
