"""A settled recipe as a step on one device: what this project's worker holds and computes."""

from __future__ import annotations

import math
from dataclasses import replace

from sysml_run import counts, shapes
from sysml_run.architecture import Architecture
from sysml_run.recipe import HardwareGpu, HardwareTpu, Recipe

from .step import Attention, State, Step

MB = 10**6
EXPERTS = ("gate_up_proj", "down_proj")  # one tensor for all of a layer
SHARED = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "unit", "up_proj": "unit"}
SHARED |= {"gate_up_proj": "unit"}
CUDA = 600 * MB  # the driver's context and cuBLAS
NCCL = 500 * MB  # where several cards talk
BUCKET = 500_000_000  # numbers in DeepSpeed's buffer for gradients (reduce_bucket_size)
LIVE = 1_000_000_000  # numbers of weights that ZeRO-3 leaves whole (stage3_max_live_parameters)


def describe(recipe: Recipe, found: Architecture, state: State) -> Step:
    """The step of one micro batch whose rows are all `sequence_len` long and labelled throughout.

    Shorter rows and prompts without labels take less: logits are computed from the first label on.
    """
    tokens, full = recipe.training.micro_batch_size * recipe.prompt.sequence_len, recipe.lora is None
    on_xla, autocast = isinstance(recipe.hardware, HardwareTpu), autocasts(recipe)
    checkpointed, half = recipe.training.gradient_checkpointing, recipe.hardware.precision != "fp32"
    return Step(
        model=_every_expert(found) if on_xla else found,
        state=state,
        tokens=tokens,
        attended=recipe.prompt.sequence_len,
        scored=tokens,
        width=_width(recipe),
        stream=4 if not half or (autocast and full) else 2,
        held=held(recipe, found),
        kept="inputs" if checkpointed else "all",
        attention=attention(recipe),
        loss="taught" if recipe.distillation else "plain",
        fused=recipe.model.kernels == "liger" or on_xla,
        trained=full,
        widened=not full and (autocast or not half),
        accumulated=(recipe.training.gradient_accumulation_steps or 1) > 1,
        gathered=_gathered(recipe, found),
        buffers=buffers(recipe, state),
        made=_made(recipe, found),
        folded=_folded(recipe, found),
        updating=updating(recipe, state),
        context=context(recipe),
        cast=_cast(found, checkpointed=checkpointed) if autocast and full else 0,
    )


def autocasts(recipe: Recipe) -> bool:
    """Whether products are in 16 bits and weights are not; DeepSpeed holds 16-bit weights and casts nothing."""
    return recipe.hardware.precision != "fp32" and getattr(recipe.hardware, "zero_stage", None) is None


def held(recipe: Recipe, found: Architecture) -> dict[str, float]:
    """Bytes of an input number that each linear layer keeps: for its own gradient, or its adapter's.

    Under autocast each layer casts its input anew, and dropout makes an input anew and keeps a byte of it; else those
    that share an input keep it once, and the result of attention is kept already. Products of experts are not cast.
    """
    width, autocast, dropout = _width(recipe), autocasts(recipe), recipe.lora is not None and recipe.lora.dropout > 0
    names = {linear.name for linear in shapes.linears(found)}
    if recipe.lora is not None:
        names = {linear.name for linear in counts.adapted(recipe.lora, found)}
    experts = {name for name in names if name in EXPERTS} if found.num_local_experts else set()
    each: dict[str, float] = dict.fromkeys(names - experts, width + (1 if dropout else 0))
    if attention(recipe) != "eager" and not dropout and (recipe.lora is None or not autocast):
        each.pop("o_proj", None)
    if not (autocast or dropout):
        each = dict.fromkeys((SHARED.get(name, name) for name in each), width)
    wide = 4 if autocast and recipe.lora is None else width
    return each | dict.fromkeys((SHARED.get(name, name) for name in experts), wide)


def attention(recipe: Recipe) -> Attention:
    """torch's own needs a mask where rows are padded to the longest, and where several documents are in one."""
    named = recipe.model.attn_implementation
    if named == "eager":
        return "eager"
    if named == "flash_attention_2":
        return "flash"
    several = recipe.training.micro_batch_size > 1 or recipe.prompt.packing
    return "masked" if several or recipe.prompt.padding != "dynamic" else "sdpa"


def layer(found: Architecture) -> int:
    """Numbers in the weights of one decoder layer."""
    return sum(tensor.size * (tensor.times // found.num_hidden_layers) for tensor in shapes.tensors(found))


def ends(found: Architecture) -> int:
    """Numbers in the matrices at both ends of the model."""
    return found.vocab_size * found.hidden_size * (1 if found.tie_word_embeddings else 2)


def _width(recipe: Recipe) -> int:
    """Bytes of a number in products."""
    return 2 if recipe.hardware.precision != "fp32" else 4


def _made(recipe: Recipe, found: Architecture) -> int:
    """One layer's matrices when they are quantized; with DoRA the largest and its change, in fp32, for their norm."""
    if recipe.quantization.load:
        return 2 * layer(found)
    largest = max(linear.inputs * linear.outputs for linear in shapes.linears(found) if linear.experts is None)
    return 8 * largest if recipe.lora is not None and recipe.lora.use_dora else 0


def _folded(recipe: Recipe, found: Architecture) -> int:
    """A layer's tensors of experts with their adapters: PEFT adapts them by a sum as large as they are."""
    if recipe.lora is None:
        return 0
    sizes = (tensor.matrix for tensor in shapes.tensors(found) if tensor.matrix and tensor.matrix.experts)
    adapted = counts.adapted(recipe.lora, found)
    return _width(recipe) * sum(math.prod(linear.shape) for linear in sizes if linear in adapted)


def _every_expert(found: Architecture) -> Architecture:
    """On XLA every expert sees every token."""
    return replace(found, num_experts_per_tok=found.num_local_experts)


def _world(recipe: Recipe) -> int:
    """Cards, or processes on a processor, that share what ZeRO divides."""
    hardware = recipe.hardware
    assert not isinstance(hardware, HardwareTpu)
    return hardware.devices * getattr(hardware, "nodes", 1)


def _gathered(recipe: Recipe, found: Architecture) -> int:
    """On XLA one layer while the next one arrives, or one of the ends; DeepSpeed leaves weights whole for longer.

    Weights that are offloaded come to the device in the same way, be it one alone.
    """
    if isinstance(recipe.hardware, HardwareTpu):
        return (4 if recipe.lora is None else 2) * max(2 * layer(found), found.vocab_size * found.hidden_size)
    return whole(recipe, found.num_hidden_layers * layer(found) + ends(found), layer(found))


def whole(recipe: Recipe, numbers: int, one: int) -> int:
    """Bytes of weights that ZeRO-3 has whole at once, of a model of so many `numbers` with `one` layer of so many."""
    assert not isinstance(recipe.hardware, HardwareTpu)
    apart = _world(recipe) > 1 or recipe.hardware.offload.parameters != "none"
    return _width(recipe) * min(numbers, LIVE + one) if recipe.hardware.zero_stage == 3 and apart else 0


def buffers(recipe: Recipe, state: State) -> int:
    """DeepSpeed's buckets, two where they are sent while the next is filled; those of DDP are as large as gradients."""
    if isinstance(recipe.hardware, HardwareTpu):
        return 0
    stage, width = int(recipe.hardware.zero_stage or 0), _width(recipe)
    if stage:
        return width * BUCKET * (2 if stage < 3 and isinstance(recipe.hardware, HardwareGpu) else 1)
    return state.gradients if _world(recipe) > 1 else 0


def updating(recipe: Recipe, state: State) -> int:
    """DeepSpeed widens its share of 16-bit gradients to fp32 before the optimizer's step, which is done in place."""
    stage, half = getattr(recipe.hardware, "zero_stage", None), recipe.hardware.precision != "fp32"
    if stage is None or not half or not state.optimizer:
        return 0
    return 2 * state.gradients // (_world(recipe) if stage == 1 else 1)


def _cast(found: Architecture, *, checkpointed: bool) -> int:
    """16-bit copies of fp32 weights that the backward pass is to use: of all layers, or of the one computed again."""
    return 2 * (ends(found) + layer(found) * (1 if checkpointed else found.num_hidden_layers))


def context(recipe: Recipe) -> int:
    if not isinstance(recipe.hardware, HardwareGpu):
        return 0
    return CUDA + (NCCL if _world(recipe) > 1 else 0)
