"""What a backend gives: derived values and the launch of the training process."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sysml_run import kernels
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe

ON_CPU = {"DS_ACCELERATOR": "cpu"}  # DeepSpeed, imported by others where it is installed, need not look for a card
# Seconds that torch's launcher gives its processes to a checkpoint once it was asked to stop; its own 30 would cut the
# saving of a large model.
PATIENCE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300"}
PLACE: Mapping[str, str] = {  # where a machine stands among several: the flag, and its value to a shell
    "--machine_rank": "${MACHINE_RANK:-${SLURM_NODEID:?the number of this machine, from 0}}",
    "--main_process_ip": "${MASTER_ADDR:-${SLURM_LAUNCH_NODE_IPADDR:?the address of the first machine}}",
    "--main_process_port": "${MASTER_PORT:-29500}",
}


@dataclass(frozen=True)
class Derived:
    """A value the plan filled in where the recipe left the choice, and why; `pointer` is dotted.

    Where it is no `key` of the recipe, `pointer` is what the setting is called.
    """

    pointer: str
    value: Any
    reason: str
    key: bool = True


@dataclass(frozen=True)
class Launch:
    """One process of a run. `files` are texts by name, relative to the run directory; `argv` names them there."""

    stage: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def on_cards(recipe: Recipe, machine: Machine) -> list[Derived]:
    """What cards settle, with DeepSpeed or without it."""
    found = []
    if recipe.model.attn_implementation == "auto":
        found.append(Derived("model.attn_implementation", *kernels.attention(recipe, machine)))
    if recipe.model.kernels == "auto":
        found.append(Derived("model.kernels", *kernels.fused(recipe, machine)))
    return found


def shell(argv: Sequence[str]) -> str:
    """The words as a shell takes them; the values of PLACE are left for it to fill in."""
    return " ".join(f'"{word}"' if word in PLACE.values() else shlex.quote(word) for word in argv)


class Backend(Protocol):
    """Recipe x Machine -> text; a backend starts nothing and touches no accelerator."""

    def derive(self, recipe: Recipe, machine: Machine) -> list[Derived]:
        """What this hardware settles that the recipe left open."""

    def train(self, recipe: Recipe, machine: Machine, run: str) -> Launch:
        """The launch of the train stage for the run directory `run`."""

    def threads(self, recipe: Recipe, machine: Machine) -> int:
        """Threads of the stages that run in one process beside training; 0 where libraries are to count the cores."""
