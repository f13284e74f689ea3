"""Weights and outputs marked in place as sharded: no wrapper, so that names and classes stay Hugging Face's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .device import AXIS, count, mesh

Spec = tuple[str | None, ...]
Key = TypeVar("Key")


def spec(shape: Sequence[int], devices: int) -> Spec:
    """The dimension that is divided: the largest of those that all devices can share equally, else the largest."""
    if not shape:
        return ()
    even = [size for size in shape if size % devices == 0]
    chosen = list(shape).index(max(even or shape))
    return tuple(AXIS if place == chosen else None for place in range(len(shape)))


def shard(model: Any, *, checkpointed: bool) -> None:
    """Move a model to the devices layer by layer, each parameter divided among them, and divide outputs by rows.

    With `checkpointed` layers keep only their inputs for the backward pass. Of torch_xla's, since torch's checkpoint
    looks for a `torch.xla` that is not there, and the compiler would merge what is computed twice.
    """
    from torch_xla.distributed.fsdp import checkpoint_module
    from torch_xla.distributed.spmd.xla_sharding import apply_backward_optimization_barrier

    for layer in layers(model):
        _place(layer)
        if checkpointed:
            checkpoint_module(layer)
        apply_backward_optimization_barrier(layer)
        layer.register_forward_hook(_by_rows)
    _place(model)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.tie_weights()
    model.register_forward_hook(_by_rows)


def layers(model: Any) -> list[Any]:
    """The decoder layers: the modules that transformers would checkpoint."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def mark(tensor: Any) -> None:
    """Divide a tensor as a parameter of its shape is."""
    import torch_xla.distributed.spmd as xs

    xs.mark_sharding(tensor, mesh(), spec(tensor.shape, count()))


def marked(tensor: Any) -> bool:
    """Whether it has been said how a tensor is divided."""
    import torch_xla

    return bool(torch_xla._XLAC._get_xla_sharding_spec(tensor))


def gather(found: Mapping[Key, Any], group: Callable[[Key], str]) -> dict[Key, Any]:
    """Whole tensors on the host. Every host must ask; one small program a group, compiled once for equal groups."""
    import torch_xla
    import torch_xla.distributed.spmd as xs

    groups: dict[str, list[Key]] = {}
    for name in found:
        groups.setdefault(group(name), []).append(name)
    torch_xla.sync()
    whole: dict[Key, Any] = {}
    for names in groups.values():
        copies = [found[name].detach() + 0 for name in names]
        for copy in copies:
            xs.mark_sharding(copy, mesh(), (None,) * copy.dim())
        torch_xla.sync()
        whole |= {name: copy.cpu() for name, copy in zip(names, copies, strict=True)}
    return whole


def held(parameters: Iterable[Any]) -> dict[str, int]:
    """Numbers in all parameters, and those that the first device holds of them."""
    import torch_xla

    listed = list(parameters)
    shards = torch_xla._XLAC._get_local_shard_replica_and_indices(listed)
    here = 0
    for parameter, found in zip(listed, shards, strict=True):
        _, indices = found[0]
        sizes = zip(indices, parameter.shape, strict=True) if isinstance(indices, list) else ()
        here += math.prod(len(range(size)[index]) for index, size in sizes) if sizes else parameter.numel()
    return {"all": sum(parameter.numel() for parameter in listed), "first_device": here}


def _place(module: Any) -> None:
    module.to("xla")
    for parameter in module.parameters():
        if not marked(parameter):
            mark(parameter)


def _by_rows(_: Any, __: Any, output: Any) -> None:
    import torch_xla.distributed.spmd as xs

    tensor = _first(output)
    if tensor is not None and tensor.dim() >= 2:
        xs.mark_sharding(tensor, mesh(), (AXIS, *(None,) * (tensor.dim() - 1)))


def _first(output: Any) -> Any:
    """The tensor of a layer's or a model's output whose first dimension is rows."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple | list):
        return _first(output[0]) if output else None
    return getattr(output, "logits", None)
