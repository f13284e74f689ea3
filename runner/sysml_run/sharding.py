"""`zero_stage: auto`: the lowest ZeRO stage whose training state leaves room on each device, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import cards, counts
from .errors import UsageError
from .machine import Machine
from .recipe import HardwareCpu, HardwareGpu, Offload, Recipe

SHARE = 0.7  # of a device's memory; the rest is for activations, logits and buffers
USUAL = 2  # shards gradients and optimizer state at the traffic of stage 0 (Rajbhandari et al. 2020, section 7)
STAGES = (0, 1, 2, 3)
GB = 1e9


def stage(recipe: Recipe, machine: Machine) -> tuple[int, str]:
    """A stage the recipe's offloading can do with, and the reason; what cannot be counted gets the usual one."""
    hardware = recipe.hardware
    assert isinstance(hardware, HardwareCpu | HardwareGpu)
    least, memory = _least(hardware), _memory(hardware, machine)
    if memory is None:
        return max(USUAL, least), "hardware.type does not end with the card's memory, as l4-24gb does"
    shared = hardware.devices * getattr(hardware, "nodes", 1) > 1
    stages = STAGES[least:] if shared else STAGES[least : least + 1]  # one device has no other to share with
    needed = {found: size for found in stages if (size := _state(recipe, machine, found)) is not None}
    if not needed:
        return max(USUAL, least), "the size of the model is not known before its files are here"
    found = next((found for found, size in needed.items() if size <= SHARE * memory), stages[-1])
    reason = _reason(found, needed, memory)
    return found, reason if needed[found] <= SHARE * memory else reason + _elsewhere(recipe)


def _reason(found: int, needed: Mapping[int, int], memory: int) -> str:
    """What each device holds with this stage, and with the one before it."""
    words = f"weights, gradients and optimizer state take {needed[found] / GB:.1f} GB"
    words += f" of each device's {memory / GB:.0f} GB"
    if found - 1 in needed:
        words += f", with stage {found - 1} {needed[found - 1] / GB:.1f} GB"
    return words if needed[found] <= SHARE * memory else f"{words}: little or nothing is left for activations"


def _elsewhere(recipe: Recipe) -> str:
    """What offloading would move to the memory of one machine, where not everything is offloaded yet."""
    hardware = recipe.hardware
    if not isinstance(hardware, HardwareGpu) or "none" not in (hardware.offload.optimizer, hardware.offload.parameters):
        return ""
    moved = replace(hardware, zero_stage=3, offload=Offload(optimizer="cpu", parameters="cpu"))
    found = counts.state_bytes(replace(recipe, hardware=moved))
    assert found is not None
    words = "; offload: {optimizer: cpu, parameters: cpu} moves "
    return f"{words}{found['host'] * hardware.devices / GB:.1f} GB to the memory of each machine"


def _least(hardware: HardwareCpu | HardwareGpu) -> int:
    """The lowest stage that can offload what the recipe offloads."""
    if hardware.offload.parameters != "none" or hardware.offload.optimizer == "nvme":
        return 3
    return USUAL if hardware.offload.optimizer == "cpu" else 0


def _memory(hardware: HardwareCpu | HardwareGpu, machine: Machine) -> int | None:
    if isinstance(hardware, HardwareCpu):
        return machine.memory // hardware.devices
    return cards.memory(hardware.type)


def _state(recipe: Recipe, machine: Machine, stage: int) -> int | None:
    """Bytes on one device; a processor's precision may not be settled yet."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareCpu) and hardware.precision == "auto":
        hardware = replace(hardware, precision="bf16" if machine.bf16 else "fp32")
    assert isinstance(hardware, HardwareCpu | HardwareGpu)
    try:
        found = counts.state_bytes(replace(recipe, hardware=replace(hardware, zero_stage=stage)))
    except UsageError:  # said where the model's files are needed
        return None
    if found is None:
        return None
    return sum(size for name, size in found.items() if name != "host")
