"""Training on cards without DeepSpeed: each holds the whole model, and gradients are averaged."""

from __future__ import annotations

from sysml_run.machine import Machine
from sysml_run.recipe import HardwareGpu, Recipe

from .base import PATIENCE, PLACE, Derived, Launch, on_cards

CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: {kind}
num_machines: {nodes}
num_processes: {processes}
machine_rank: 0
{rendezvous}
mixed_precision: '{mixed}'
use_cpu: false
debug: false
"""


class Ddp:
    """`distributed_type: MULTI_GPU`, or one process for one card."""

    def derive(self, recipe: Recipe, machine: Machine) -> list[Derived]:
        return on_cards(recipe, machine)

    def train(self, recipe: Recipe, machine: Machine, run: str) -> Launch:
        hardware, config = recipe.hardware, "launch/accelerate.yaml"
        assert isinstance(hardware, HardwareGpu)
        processes = hardware.devices * hardware.nodes
        text = CONFIG.format(
            kind="MULTI_GPU" if processes > 1 else "'NO'",
            nodes=hardware.nodes,
            processes=processes,
            rendezvous="main_process_port: 0" if hardware.nodes == 1 else "rdzv_backend: static",
            mixed={"fp32": "no"}.get(hardware.precision, hardware.precision),
        )
        place = [word for pair in PLACE.items() for word in pair] if hardware.nodes > 1 else []
        worker = ("-m", "sysml_run.worker", "train", run)
        return Launch(
            "train",
            (machine.accelerate, "launch", "--config_file", f"{run}/{config}", *place, *worker),
            {"OMP_NUM_THREADS": str(max(1, machine.cores // hardware.devices)), **PATIENCE},
            {config: text},
        )

    def threads(self, recipe: Recipe, machine: Machine) -> int:
        return machine.cores
