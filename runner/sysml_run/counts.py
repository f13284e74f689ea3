"""How many parameters a recipe's model has and trains, and the bytes of its training state, counted without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import architecture, optimizerstate, slices
from .errors import UsageError
from .modelref import locate
from .recipe import HardwareCpu, HardwareGpu, HardwareTpu, Lora, Recipe
from .shapes import ENDS, Linear, Tensor, known, linears, tensors

DTYPES = {"bfloat16": 2, "float16": 2, "float32": 4}  # bytes of a number
HALF = ("bf16", "fp16")
ZERO = {"optimizer": 1, "gradients": 2, "weights": 3}  # the stage from which each is shared (Rajbhandari et al. 2020)
BLOCK_NF4, BLOCK_SCALES = 64, 256  # QLoRA (Dettmers et al. 2023): numbers with one scale, scales with one scale


@dataclass(frozen=True)
class Parameters:
    """`total` is the base model's; `adapter_bytes` what the saved adapter's tensors take, None without an adapter.

    `matched` counts the matrices of each name that get an adapter, an expert's gate and up as one; `unmatched` are the
    target modules that name no linear layer, with which the worker starts no training.
    """

    total: int
    trainable: int
    adapter_bytes: int | None
    matched: Mapping[str, int]
    unmatched: tuple[str, ...]


def parameters(recipe: Recipe) -> Parameters | None:
    """None for a model that is not at hand or whose tensors are not known here. Raises UsageError for broken files."""
    found = _architecture(recipe)
    if found is None:
        return None
    total = sum(tensor.size * tensor.times for tensor in tensors(found))
    if recipe.lora is None:
        return Parameters(total, total, None, {}, ())
    targets = adapted(recipe.lora, found)
    trained = [*_trained(recipe, found)]
    return Parameters(
        total,
        sum(tensor.size * tensor.times for tensor in trained),
        sum(_trained_bytes(recipe, tensor) for tensor in trained) + _saved_ends(recipe, found),
        {linear.name: layers * (linear.experts or 1) for linear, layers in targets.items()},
        _unmatched(recipe.lora, found),
    )


def unmatched(recipe: Recipe) -> tuple[str, ...] | None:
    """Target modules that name no linear layer; None without an adapter and where the model cannot be looked at."""
    if recipe.lora is None:
        return None
    if isinstance(recipe.lora.target_modules, str):
        return ()  # a group is what the model has, so the model is not looked at
    found = _readable(recipe)
    return None if found is None else _unmatched(recipe.lora, found)


def plain_only(recipe: Recipe) -> tuple[str, ...] | None:
    """Names that get an adapter which PEFT can give neither dropout nor DoRA: the router and the experts of Mixtral.

    None as for `unmatched`.
    """
    found = _readable(recipe) if recipe.lora else None
    if found is None or recipe.lora is None:
        return None
    return tuple(linear.name for linear in adapted(recipe.lora, found) if linear.parameter)


def state_bytes(recipe: Recipe) -> dict[str, int] | None:
    """Bytes on one device of `weights`, `gradients` and `optimizer`, and of what is offloaded from it to its `host`.

    Left out are activations, logits, communication buffers, fragmentation, the library's own memory, and scalars and
    lookup tables of optimizers and quantizers. With ZeRO each device holds an equal share of the optimizer's state
    (stage 1), of the gradients too (2) and of the weights too (3), as in Rajbhandari et al. 2020, section 5; its state
    is that of one long vector, and DeepSpeed 0.19 adds an fp32 copy of what is trained. None for an architecture that
    is not known, and while `precision` or `zero_stage` is still `auto`. Raises UsageError for an unknown TPU slice.
    """
    found, hardware = _architecture(recipe), recipe.hardware
    if found is None or "auto" in (hardware.precision, getattr(hardware, "zero_stage", None)):
        return None
    return state_of(recipe, found)


def state_of(recipe: Recipe, found: architecture.Architecture) -> dict[str, int]:
    """As `state_bytes`, for a settled recipe and a model that is looked at already."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareTpu):
        return _on_xla(recipe, found, slices.find(hardware.topology).devices)
    trained = [*_trained(recipe, found)]
    adapters = sum(_trained_bytes(recipe, tensor) for tensor in trained) if recipe.lora else 0
    return shared_out(recipe, _base_bytes(recipe, found) + adapters, trained)


def shared_out(recipe: Recipe, weights: int, trained: list[Tensor]) -> dict[str, int]:
    """As `state_bytes`, for a model with so many bytes of `weights` that trains these tensors, on no TPU."""
    hardware = recipe.hardware
    assert not isinstance(hardware, HardwareTpu)
    stage = int(hardware.zero_stage or 0)
    world = hardware.devices * getattr(hardware, "nodes", 1)
    gradients = sum(_trained_bytes(recipe, tensor) for tensor in trained)
    each = divided({"weights": weights, "gradients": gradients}, stage, world)
    each["optimizer"] = _optimizer_bytes(recipe, trained, stage, world)
    return _moved(recipe, each, trained, world) if isinstance(hardware, HardwareGpu) else _beside(hardware, each)


def _beside(hardware: HardwareCpu, each: dict[str, int]) -> dict[str, int]:
    """What is offloaded to a processor's memory is there already."""
    places = {"optimizer": hardware.offload.optimizer, "weights": hardware.offload.parameters}
    return each | {name: 0 for name, place in places.items() if place == "nvme"} | {"host": 0}


def _moved(recipe: Recipe, each: dict[str, int], trained: list[Tensor], world: int) -> dict[str, int]:
    """What cards offload; from ZeRO-2 on gradients go with the optimizer's state, as in DeepSpeed 0.19.

    In the host's memory they are in fp32 for the optimizer's step, and as they come where they are added up. ZeRO-2
    sends them through a buffer for the largest. Where the state is on NVMe, gradients alone wait in memory.
    """
    hardware, host = recipe.hardware, 0
    assert isinstance(hardware, HardwareGpu)
    if hardware.offload.parameters != "none":
        host += each["weights"] if hardware.offload.parameters == "cpu" else 0
        each = each | {"weights": 0}
    if hardware.offload.optimizer != "none":
        stage, numbers = int(hardware.zero_stage or 0), sum(tensor.size * tensor.times for tensor in trained)
        if hardware.offload.optimizer == "cpu":
            host += each["optimizer"] + 4 * _share(numbers, world, True)
        if stage == 3 or (stage == 2 and (recipe.training.gradient_accumulation_steps or 1) > 1):
            host += each["gradients"]
        left = {2: _width(recipe) * max((tensor.size for tensor in trained), default=0), 3: 0}
        each = each | {"optimizer": 0, "gradients": left.get(stage, each["gradients"])}
    return each | {"host": host}


def divided(whole: Mapping[str, int], stage: int, world: int) -> dict[str, int]:
    """What each of so many devices holds of `weights`, `gradients` and `optimizer`, in bytes, with a stage of ZeRO."""
    return {name: _share(size, world, stage >= ZERO[name]) for name, size in whole.items()}


def _on_xla(recipe: Recipe, found: architecture.Architecture, devices: int) -> dict[str, int]:
    """Each device holds an equal share of all of it; the optimizer's state is that of each tensor."""
    trained = [*_trained(recipe, found)]
    gradients = sum(_trained_bytes(recipe, tensor) for tensor in trained)
    whole = {
        "weights": _base_bytes(recipe, found) + (gradients if recipe.lora else 0),
        "gradients": gradients,
        "optimizer": sum(tensor.times * optimizerstate.size(recipe.optimizer.name, tensor, 4) for tensor in trained),
    }
    return {name: _share(size, devices, True) for name, size in whole.items()} | {"host": 0}


def architecture_of(recipe: Recipe) -> architecture.Architecture | None:
    """What the base model is built of; None where it is not known or cannot be read."""
    return _readable(recipe)


def _architecture(recipe: Recipe) -> architecture.Architecture | None:
    try:
        locate(recipe.model.base_model)
    except UsageError:  # not on this machine
        return None
    found = architecture.find(recipe.model)
    return found if known(found) else None


def _readable(recipe: Recipe) -> architecture.Architecture | None:
    try:
        return _architecture(recipe)
    except UsageError:  # what is broken is said where the files are needed
        return None


def adapted(lora: Lora, found: architecture.Architecture) -> dict[Linear, int]:
    """The linear layers that get an adapter, each with the number of decoder layers in which it does."""
    hits = {linear: _hits(lora, linear) for linear in linears(found)}
    return {linear: layers for linear, layers in hits.items() if layers}


def _hits(lora: Lora, linear: Linear) -> int:
    if lora.target_modules == "all-linear":
        return 0 if linear.name in ENDS else linear.layers
    if lora.target_modules == "attention":
        return linear.layers if ".self_attn." in linear.path else 0
    hits = sum(any(_names(target, path) for target in lora.target_modules) for path in linear.paths() if linear.named)
    return linear.layers if hits and linear.parameter else hits  # PEFT takes a parameter by its last name, everywhere


def _names(target: str, path: str) -> bool:
    return path == target or path.endswith(f".{target}")


def _unmatched(lora: Lora, found: architecture.Architecture) -> tuple[str, ...]:
    targets = () if isinstance(lora.target_modules, str) else lora.target_modules
    paths = [path for linear in linears(found) if linear.named for path in linear.paths()]
    return tuple(target for target in targets if not any(_names(target, path) for path in paths))


def _trained(recipe: Recipe, found: architecture.Architecture) -> Iterator[Tensor]:
    """All tensors, or of each adapter A (rank x inputs), B (outputs x rank) and, for DoRA, a vector of the outputs."""
    if recipe.lora is None:
        yield from tensors(found)
        return
    for linear, layers in adapted(recipe.lora, found).items():
        rank = recipe.lora.r * linear.fused * (linear.experts or 1)
        yield Tensor((rank, linear.inputs), layers)
        yield Tensor((linear.outputs, rank), layers)
        if recipe.lora.use_dora and not linear.parameter:
            yield Tensor((linear.outputs,), layers)


def _width(recipe: Recipe) -> int:
    """Bytes of a number that is trained: fp32, and 16 bits in DeepSpeed's half precision."""
    return 2 if _deepspeed_half(recipe) else 4


def _deepspeed_half(recipe: Recipe) -> bool:
    """Whether DeepSpeed holds 16-bit weights beside an fp32 copy, as it does on cards."""
    hardware = recipe.hardware
    return isinstance(hardware, HardwareGpu) and hardware.zero_stage is not None and hardware.precision in HALF


def _trained_bytes(recipe: Recipe, tensor: Tensor) -> int:
    return tensor.size * tensor.times * _width(recipe)


def _base_bytes(recipe: Recipe, found: architecture.Architecture) -> int:
    targets = adapted(recipe.lora, found) if recipe.lora else {}
    total = 0
    for tensor in tensors(found):
        under = targets.get(tensor.matrix, 0) if tensor.matrix else 0
        total += under * _frozen(recipe, tensor, adapted=True)
        total += (tensor.times - under) * _frozen(recipe, tensor, adapted=False)
    return total


def _frozen(recipe: Recipe, tensor: Tensor, *, adapted: bool) -> int:
    """Bytes of one tensor of the base model as training holds it; one under an adapter is cast to bf16 beforehand."""
    matrix, precision = tensor.matrix, recipe.hardware.precision
    if recipe.quantization.load and matrix and matrix.name not in ENDS and not matrix.parameter:
        return _quantized(recipe.quantization.load, tensor)
    if getattr(recipe.hardware, "zero_stage", None) is not None:
        return (2 if _deepspeed_half(recipe) else 4) * tensor.size  # DeepSpeed wants one format in all
    if recipe.lora is None or (recipe.quantization.load and len(tensor.shape) == 1):
        return 4 * tensor.size  # under adapters on a quantized base, norms and biases are in fp32
    if adapted and precision == "bf16" and not recipe.lora.use_dora and len(tensor.shape) == 2:
        return 2 * tensor.size
    return (4 if precision == "fp32" else DTYPES[recipe.model.dtype]) * tensor.size


def _quantized(method: str, tensor: Tensor) -> int:
    """int8 has an fp32 scale for each output; nf4 an 8-bit one a block, and those an fp32 one: 4.127 bits a number."""
    if method == "int8":
        return tensor.size + 4 * tensor.shape[0]
    scales = math.ceil(tensor.size / BLOCK_NF4)
    return math.ceil(tensor.size / 2) + scales + 4 * math.ceil(scales / BLOCK_SCALES)


def _saved_ends(recipe: Recipe, found: architecture.Architecture) -> int:
    """PEFT saves the base's matrices at both ends too where one is adapted by its bare name."""
    assert recipe.lora is not None
    if isinstance(recipe.lora.target_modules, str) or not set(ENDS) & set(recipe.lora.target_modules):
        return 0
    ends = [linear for linear in adapted(recipe.lora, found) if linear.name in ENDS]
    return sum(_frozen(recipe, Tensor(linear.shape, 1, linear), adapted=True) for linear in ends)


def _optimizer_bytes(recipe: Recipe, trained: list[Tensor], stage: int, world: int) -> int:
    name, copy = recipe.optimizer.name, _copied(recipe, stage)
    if stage:
        trained = [Tensor((_share(sum(tensor.size * tensor.times for tensor in trained), world, True),))]
    width = copy or (4 if stage else _width(recipe))
    return sum(tensor.times * (copy * tensor.size + optimizerstate.size(name, tensor, width)) for tensor in trained)


def _copied(recipe: Recipe, stage: int) -> int:
    """Bytes of a number in DeepSpeed's fp32 copy of what it trains; none in stage 3 of fp32 weights on the device."""
    hardware = recipe.hardware
    assert not isinstance(hardware, HardwareTpu)
    wanted = _deepspeed_half(recipe) or stage in (1, 2) or (stage == 3 and hardware.offload.optimizer != "none")
    return 4 if wanted else 0


def _share(size: int, world: int, divided: bool) -> int:
    return math.ceil(size / world) if divided else size
