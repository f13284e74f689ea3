"""One module for each way of launching, and the table that says which recipes it is for."""

from __future__ import annotations

from collections.abc import Mapping

from sysml_run.recipe import HardwareCpu, HardwareGpu, Recipe

from .base import Backend
from .cpu import Cpu
from .ddp import Ddp
from .deepspeed import DeepSpeed
from .xla_fsdp import XlaFsdp

BACKENDS: Mapping[str, Backend] = {"cpu": Cpu(), "ddp": Ddp(), "deepspeed": DeepSpeed(), "xla_fsdp": XlaFsdp()}


def named(recipe: Recipe) -> str:
    """The row of BACKENDS that trains this recipe."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareCpu):
        return "cpu" if hardware.zero_stage is None and hardware.devices == 1 else "deepspeed"
    if isinstance(hardware, HardwareGpu):
        return "ddp" if hardware.zero_stage is None else "deepspeed"
    return "xla_fsdp"
