"""Training through DeepSpeed ZeRO: the cards of one or more machines, or gloo processes on a processor."""

from __future__ import annotations

import json
from typing import Any

from sysml_run import caches, sharding
from sysml_run.machine import Machine
from sysml_run.recipe import HardwareCpu, HardwareGpu, Recipe

from .base import ON_CPU, PATIENCE, PLACE, Derived, Launch, on_cards
from .cpu import processor

PROCESSES = Derived("hardware.zero_stage", 0, "several processes on a processor train together through DeepSpeed")

CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
num_machines: {nodes}
num_processes: {processes}
machine_rank: 0
{rendezvous}
use_cpu: {on_cpu}
debug: false
deepspeed_config:
  deepspeed_config_file: {file}
  zero3_init_flag: {shards_weights}
"""


class DeepSpeed:
    """`mixed_precision` is not in accelerate's file, which refuses it beside a DeepSpeed file: that one has it."""

    def derive(self, recipe: Recipe, machine: Machine) -> list[Derived]:
        hardware = _hardware(recipe)
        found = processor(recipe, machine) if isinstance(hardware, HardwareCpu) else on_cards(recipe, machine)
        if hardware.zero_stage is None:
            found.append(PROCESSES)
        elif hardware.zero_stage == "auto":
            found.append(Derived("hardware.zero_stage", *sharding.stage(recipe, machine)))
        return found

    def train(self, recipe: Recipe, machine: Machine, run: str) -> Launch:
        hardware, settings = _hardware(recipe), "launch/deepspeed.json"
        nodes = getattr(hardware, "nodes", 1)
        config = CONFIG.format(
            nodes=nodes,
            processes=hardware.devices * nodes,
            rendezvous="main_process_port: 0" if nodes == 1 else "rdzv_backend: static",
            on_cpu=_word(isinstance(hardware, HardwareCpu)),
            file=json.dumps(f"{run}/{settings}"),
            shards_weights=_word(hardware.zero_stage == 3),
        )
        place = [word for pair in PLACE.items() for word in pair] if nodes > 1 else []
        worker = ("-m", "sysml_run.worker", "train", run)
        if nodes > 1:
            config += "  deepspeed_multinode_launcher: standard\n"
        return Launch(
            "train",
            (machine.accelerate, "launch", "--config_file", f"{run}/launch/accelerate.yaml", *place, *worker),
            _environment(recipe, machine),
            {"launch/accelerate.yaml": config, settings: json.dumps(zero(recipe), indent=2) + "\n"},
        )

    def threads(self, recipe: Recipe, machine: Machine) -> int:
        hardware = _hardware(recipe)
        return (hardware.threads or 1) if isinstance(hardware, HardwareCpu) else machine.cores


def zero(recipe: Recipe) -> dict[str, Any]:
    """DeepSpeed's file, with nothing left to guess at.

    It names neither optimizer nor schedule: those of the recipe are handed over, the same that run without DeepSpeed.
    Bucket sizes are not in it, so that DeepSpeed's own hold.
    """
    hardware, training = _hardware(recipe), recipe.training
    accumulation = training.gradient_accumulation_steps or 1
    world = hardware.devices * getattr(hardware, "nodes", 1)
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": training.micro_batch_size * accumulation * world,
        "gradient_clipping": training.max_grad_norm,
        **_precision(hardware),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": _sharding(hardware),
    }


def _precision(hardware: HardwareCpu | HardwareGpu) -> dict[str, Any]:
    """Cards hold 16-bit weights beside the optimizer's fp32 copy.

    A processor holds fp32 weights and computes products in bf16, as one process without DeepSpeed does: the losses are
    then the same. No module's gradients are exchanged in bf16 for it.
    """
    on_gpu = isinstance(hardware, HardwareGpu)
    found: dict[str, Any] = {
        "bf16": {"enabled": on_gpu and hardware.precision == "bf16"},
        "fp16": {"enabled": on_gpu and hardware.precision == "fp16"},
    }
    if not on_gpu and hardware.precision == "bf16":
        found["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return found


def _sharding(hardware: HardwareCpu | HardwareGpu) -> dict[str, Any]:
    """What each process keeps a share of, and where. On a processor even small weights are sharded, as large ones are.

    Weights are always gathered to be saved: shards alone would be no model.
    """
    stage, on_gpu = int(hardware.zero_stage or 0), isinstance(hardware, HardwareGpu)
    found: dict[str, Any] = {"stage": stage}
    if stage:
        found |= {"overlap_comm": on_gpu, "contiguous_gradients": True}
    if stage == 3:
        found |= {"stage3_gather_16bit_weights_on_model_save": True}
        found |= {} if on_gpu else {"stage3_param_persistence_threshold": 0}
    places = {"offload_optimizer": hardware.offload.optimizer, "offload_param": hardware.offload.parameters}
    for name, device in places.items():
        if device != "none":
            found[name] = {"device": device, "pin_memory": on_gpu} | _disk(device)
    return found


def _disk(device: str) -> dict[str, str]:
    """The folder in the cache, which XDG_CACHE_HOME moves to the fast disk."""
    return {"nvme_path": str(caches.cache_dir() / "offload")} if device == "nvme" else {}


def _environment(recipe: Recipe, machine: Machine) -> dict[str, str]:
    hardware = _hardware(recipe)
    if isinstance(hardware, HardwareCpu):
        own = {"OMP_NUM_THREADS": str(hardware.threads or 1), **ON_CPU}
    else:
        own = {"OMP_NUM_THREADS": str(max(1, machine.cores // hardware.devices))}
    return own | PATIENCE


def _hardware(recipe: Recipe) -> HardwareCpu | HardwareGpu:
    assert isinstance(recipe.hardware, HardwareCpu | HardwareGpu)
    return recipe.hardware


def _word(value: bool) -> str:
    return str(value).lower()
