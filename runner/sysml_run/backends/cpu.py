"""Training on this machine's processor: one process through `accelerate launch`."""

from __future__ import annotations

from sysml_run.machine import Machine
from sysml_run.recipe import HardwareCpu, Recipe

from .base import ON_CPU, Derived, Launch

EAGER_LIMIT = 512

CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
num_machines: 1
num_processes: 1
machine_rank: 0
mixed_precision: '{mixed}'
use_cpu: true
debug: false
"""


class Cpu:
    """`distributed_type: 'NO'`; MULTI_CPU would start one process whatever it is told unless mpirun is there."""

    def derive(self, recipe: Recipe, machine: Machine) -> list[Derived]:
        return processor(recipe, machine)

    def train(self, recipe: Recipe, machine: Machine, run: str) -> Launch:
        mixed = "bf16" if recipe.hardware.precision == "bf16" else "no"
        config = "launch/accelerate.yaml"
        worker = ("-m", "sysml_run.worker", "train", run)
        return Launch(
            "train",
            (machine.accelerate, "launch", "--config_file", f"{run}/{config}", *worker),
            {"OMP_NUM_THREADS": str(self.threads(recipe, machine)), **ON_CPU},
            {config: CONFIG.format(mixed=mixed)},
        )

    def threads(self, recipe: Recipe, machine: Machine) -> int:
        return _hardware(recipe).threads or 1


def processor(recipe: Recipe, machine: Machine) -> list[Derived]:
    """What a processor settles, however many processes share it."""
    hardware = _hardware(recipe)
    found = []
    if hardware.precision == "auto":
        found.append(Derived("hardware.precision", "bf16" if machine.bf16 else "fp32", machine.bf16_reason))
    if hardware.threads is None:
        each = max(1, machine.cores // hardware.devices)
        found.append(Derived("hardware.threads", each, f"{machine.cores} cores for {hardware.devices} process(es)"))
    if recipe.model.attn_implementation == "auto":
        found.append(_attention(recipe.prompt.sequence_len))
    return found


def _hardware(recipe: Recipe) -> HardwareCpu:
    assert isinstance(recipe.hardware, HardwareCpu)
    return recipe.hardware


def _attention(length: int) -> Derived:
    """Plain attention is faster for short rows; its memory grows with the square of the length."""
    if length <= EAGER_LIMIT:
        return Derived("model.attn_implementation", "eager", f"fastest on a processor up to {EAGER_LIMIT} tokens")
    return Derived("model.attn_implementation", "sdpa", f"flat in memory beyond {EAGER_LIMIT} tokens")
