"""One module for each way of launching, and the table that says which recipes it is for."""

from __future__ import annotations

from collections.abc import Mapping

from sysml_run.recipe import HardwareCpu, HardwareGpu, Recipe

from .base import Backend
from .cpu import Cpu
from .ddp import Ddp
from .deepspeed import DeepSpeed

BACKENDS: Mapping[str, Backend] = {"cpu": Cpu(), "ddp": Ddp(), "deepspeed": DeepSpeed()}


def named(recipe: Recipe) -> str | None:
    """The row of BACKENDS that trains this recipe; None for hardware that none of them is for."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareCpu):
        return "cpu" if hardware.zero_stage is None and hardware.devices == 1 else "deepspeed"
    if isinstance(hardware, HardwareGpu):
        return "ddp" if hardware.zero_stage is None else "deepspeed"
    return None
