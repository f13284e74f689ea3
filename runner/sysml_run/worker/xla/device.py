"""The XLA devices of this process: what they are, and the mesh that a model is sharded over."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import HardwareTpu, Recipe
from sysml_run.slices import Slice, find
from sysml_run.worker import ranks

AXIS = "fsdp"
DOWNCASTS = ("XLA_USE_BF16", "XLA_DOWNCAST_BF16")  # torch_xla 2.9 obeys them, and turns fp32 weights into bf16


def wanted(recipe: Recipe) -> bool:
    """Whether this recipe trains on XLA devices."""
    return isinstance(recipe.hardware, HardwareTpu)


def slice_of(recipe: Recipe) -> Slice:
    """The TPU slice that the recipe names."""
    assert isinstance(recipe.hardware, HardwareTpu)
    return find(recipe.hardware.topology)


def ready() -> None:
    """Turn sharding over several devices on, before anything is computed. Raises StageError for weights in bf16."""
    lowered = [name for name in DOWNCASTS if os.environ.get(name, "0").lower() not in ("0", "false")]
    if lowered:
        message = f"{lowered[0]} is set, and torch_xla would hold every fp32 weight in bf16"
        raise StageError(message, f"unset {lowered[0]}: hardware.precision says what is computed in bf16")
    import torch_xla.runtime as xr

    xr.use_spmd()
    if ranks.world() > 1:  # hosts of one slice: they compute through XLA, and agree on the rest through gloo
        import torch

        os.environ.setdefault("MASTER_PORT", "29500")
        torch.distributed.init_process_group("gloo")


def count() -> int:
    """Devices over all hosts of the slice."""
    import torch_xla.runtime as xr

    return int(xr.global_runtime_device_count())


def virtual() -> bool:
    """Whether they are made of the processor."""
    import torch_xla.runtime as xr

    return bool(xr.device_type() == "CPU")


def kind() -> str:
    """What trains, in words."""
    if virtual():
        return f"XLA on the processor, {count()} virtual devices; not a TPU"
    return f"TPU, {count()} devices"


@cache
def mesh() -> Any:
    """All devices in one row named AXIS."""
    import numpy as np
    import torch_xla.distributed.spmd as xs

    found = xs.Mesh(np.arange(count()), (count(),), (AXIS,))
    xs.set_global_mesh(found)
    return found


def check(recipe: Recipe, rows: int) -> None:
    """Compare the devices with the recipe's slice, and the rows to train on with a micro batch. Raises StageError.

    On the processor any number of devices is taken that the rows of a micro batch can be divided by.
    """
    import torch_xla.runtime as xr

    if (xr.process_index(), xr.process_count()) != (ranks.rank(), ranks.world()):
        message = f"this is host {xr.process_index()} of {xr.process_count()} to libtpu, and RANK and WORLD_SIZE say"
        raise StageError(f"{message} {ranks.rank()} of {ranks.world()}", "set them as libtpu counts the hosts")
    named, found = slice_of(recipe), count()
    if not virtual() and found != named.devices:
        message = f"hardware.topology {named.name} has {named.devices} devices, and torch_xla sees {found}"
        raise StageError(message, "name the slice that this is, or start the same command on every host of it")
    batch = recipe.training.micro_batch_size * named.devices
    if batch % found:
        message = f"{batch} rows of a micro batch are no multiple of {found} devices"
        raise StageError(message, f"export CPU_NUM_DEVICES={named.devices}")
    if rows < batch:
        message = f"there are {rows} rows to train on, and {named.devices} devices take {batch} at once"
        raise StageError(message, "lower training.micro_batch_size, or name a smaller slice")
