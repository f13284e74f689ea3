"""Whether a training step fits: what it is estimated to take on one device, against the memory that device has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sysml_run import cards, slices
from sysml_run.machine import Machine
from sysml_run.recipe import HardwareCpu, HardwareGpu, Recipe

from . import Estimate, of

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "overhead")
Word = Literal["fits", "fits barely", "does not fit"]


@dataclass(frozen=True)
class Verdict:
    """`available` bytes of one device, None where they are not known."""

    estimate: Estimate
    available: int | None

    @property
    def ends(self) -> tuple[int, int]:
        """Bytes between which the measured peak is expected."""
        total, band = self.estimate.total, self.estimate.band
        return round(total * (1 - band)), round(total * (1 + band))

    @property
    def word(self) -> Word | None:
        """It fits barely where the estimate does, and the upper end of its band does not."""
        if self.available is None:
            return None
        if self.estimate.total > self.available:
            return "does not fit"
        return "fits" if self.ends[1] <= self.available else "fits barely"

    @property
    def dominates(self) -> str:
        """The largest of PARTS."""
        return max(PARTS, key=lambda part: int(getattr(self.estimate, part)))


def verdict(recipe: Recipe, machine: Machine) -> Verdict | None:
    """Of a settled recipe; None where the architecture of its model is not known, or its files cannot be read."""
    found = of(recipe, machine)
    return None if found is None else Verdict(found, available(recipe, machine))


def available(recipe: Recipe, machine: Machine) -> int | None:
    """Bytes of one device: a card's by its name, a TPU's by its slice, of this machine's memory an equal share."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareGpu):
        return cards.memory(hardware.type)
    if isinstance(hardware, HardwareCpu):
        return None if machine.elsewhere else machine.memory // hardware.devices
    return machine.memory // machine.virtual if machine.virtual else slices.find(hardware.topology).memory
