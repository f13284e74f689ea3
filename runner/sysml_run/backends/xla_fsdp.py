"""Training on a TPU slice: one process a host, and XLA divides weights and rows among every device of the slice."""

from __future__ import annotations

from collections.abc import Iterator

from sysml_run import counts, slices
from sysml_run.machine import Machine
from sysml_run.recipe import HardwareTpu, Recipe

from .base import Derived, Launch

# `distributed_type: XLA` would start a process for every chip, and `mixed_precision: bf16` turn fp32 weights to bf16.
CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
mixed_precision: 'no'
num_machines: 1
num_processes: 1
use_cpu: false
debug: false
"""


class XlaFsdp:
    """`num_machines` is 1 on every host of a slice too: libtpu finds the others."""

    def derive(self, recipe: Recipe, machine: Machine) -> list[Derived]:
        return [*_keys(recipe), *_settings(recipe, machine)]

    def train(self, recipe: Recipe, machine: Machine, run: str) -> Launch:
        config = "launch/accelerate.yaml"
        worker = ("-m", "sysml_run.worker", "train", run)
        return Launch(
            "train",
            (machine.accelerate, "launch", "--config_file", f"{run}/{config}", *worker),
            environment(machine),
            {config: CONFIG},
        )

    def threads(self, recipe: Recipe, machine: Machine) -> int:
        return 0 if machine.elsewhere else machine.cores


def environment(machine: Machine) -> dict[str, str]:
    """What XLA reads: where to compute, and that fp32 stays fp32, whatever the shell it is started from says."""
    place = {"PJRT_DEVICE": "TPU"}
    if machine.virtual:
        place = {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(machine.virtual)}
    kept = {"USE_TORCH_XLA": "1", "XLA_USE_BF16": "0", "XLA_DOWNCAST_BF16": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}
    threads = {} if machine.elsewhere else {"OMP_NUM_THREADS": str(machine.cores)}
    return {**threads, **place, **kept}


def _keys(recipe: Recipe) -> Iterator[Derived]:
    """Keys of the recipe that are left open."""
    if recipe.model.attn_implementation == "auto":
        why = "others ask in every step whether there is a mask, and wait for the answer"
        yield Derived("model.attn_implementation", "eager", why)
    if recipe.prompt.padding == "dynamic":
        why = "XLA compiles a program for every shape: all rows are padded to sequence_len"
        yield Derived("prompt.padding", "max_length", why)


def _settings(recipe: Recipe, machine: Machine) -> Iterator[Derived]:
    """What no key of the recipe is for."""
    named = _slice(recipe)
    each, rows = recipe.training.micro_batch_size, recipe.training.micro_batch_size * named.devices
    if machine.virtual:
        words = f"XLA on the processor, {machine.virtual} virtual devices; not a TPU"
        yield Derived("PJRT_DEVICE", "CPU", words, key=False)
    yield Derived("global micro batch", rows, f"{each} a device x {named.devices} devices of {named.name}", key=False)
    yield Derived("incomplete batches", "dropped", "a smaller batch would be another shape", key=False)
    yield Derived("pinned memory, loader processes", "none", "the rows are sent to the devices by XLA", key=False)
    if recipe.optimizer.name == "lion":
        yield Derived("optimizer class", "lion_pytorch.Lion", "bitsandbytes has none for XLA", key=False)
    if _mixture(recipe):
        why = "the published forward has shapes that follow from the router; static ones send every token to all"
        yield Derived("experts", "static", why, key=False)
    if recipe.training.gradient_checkpointing:
        yield Derived("checkpointing", "torch_xla's", "the compiler would undo torch's", key=False)
    why = f"one for each host of {named.name}, which holds {named.chips // named.hosts} of {named.chips} chips"
    yield Derived("processes", named.hosts, why, key=False)


def _mixture(recipe: Recipe) -> bool:
    found = counts.architecture_of(recipe)
    return found is not None and bool(found.num_local_experts)


def _slice(recipe: Recipe) -> slices.Slice:
    assert isinstance(recipe.hardware, HardwareTpu)
    return slices.find(recipe.hardware.topology)
