"""How much memory a training step takes at its peak, in closed form: before anything runs, without torch."""

from __future__ import annotations

from sysml_run import counts
from sysml_run.errors import UsageError
from sysml_run.machine import Machine
from sysml_run.recipe import HardwareCpu, HardwareGpu, HardwareTpu, Recipe

from . import cpu, peak, recipes
from .parts import Estimate
from .step import State

__all__ = ["Estimate", "of"]

# Nine of ten published peaks of cards of the same length throughout are this near (benchmarks/memory.py, by method);
# none of a TPU is published, whose step is counted by the same formulas.
BANDS = {"full": 0.15, "adapters": 0.15, "quantized": 0.30, "tpu": 0.30}


def of(recipe: Recipe, machine: Machine) -> Estimate | None:
    """None for an architecture that is not known, and while something is still `auto`. Raises nothing."""
    try:
        found, state = counts.architecture_of(recipe), counts.state_bytes(recipe)
    except UsageError:  # said where the model's files are needed
        return None
    if found is None or state is None:
        return None
    if isinstance(recipe.hardware, HardwareCpu):
        return cpu.of(recipe, machine, found)
    cards = recipe.hardware.devices if isinstance(recipe.hardware, HardwareGpu) else 1
    own = State(state["weights"], state["gradients"], state["optimizer"], state["host"] * cards)
    return parts(peak.of(recipes.describe(recipe, found, own)), BANDS[kind(recipe)])


def kind(recipe: Recipe) -> str:
    """Which of BANDS holds for a recipe."""
    if isinstance(recipe.hardware, HardwareTpu):
        return "tpu"
    return "full" if recipe.lora is None else "quantized" if recipe.quantization.load else "adapters"


def parts(most: peak.Peak, band: float) -> Estimate:
    """What a device holds at its peak, with what is not of the model in one."""
    overhead = most.buffers + most.slack + most.context
    of_model = (most.weights, most.gradients, most.optimizer, most.activations, most.logits)
    return Estimate(*of_model, overhead, most.host, band)
