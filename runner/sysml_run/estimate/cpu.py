"""The most memory that one training process holds on a processor: what is counted, and what was measured.

Not counted: what is written while checkpoints are saved, which takes less than a step, and DoRA's products.
"""

from __future__ import annotations

from dataclasses import dataclass

from sysml_run import counts, shapes
from sysml_run.architecture import Architecture
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe

from .parts import Estimate

MB = 10**6
FLOAT = 4
# Python 3.11 with torch 2.13, transformers 5.23, PEFT 0.21, TRL 1.16 and bitsandbytes 0.50 that has trained a model of
# 0.2 M numbers: resident memory, of which 160 MB are the libraries' files.
WORKER = 590 * MB
DEEPSPEED = 120 * MB  # DeepSpeed 0.19 and gloo
ADAPTERS = 60 * MB  # PEFT's adapters, beside their weights
# glibc's posix_memalign does not find a block that was freed for one of the same size. Where all weights are trained,
# gradients and the optimizer's state fill such holes later, but for a share of what a step takes for a while. With
# adapters under autocast they are as large as the fp32 copies that PEFT makes of each adapter's input, for a share too.
SCATTERED, COPIED = 0.25, 0.85
EVALUATED = 4096  # tokens of a batch of the validation rows
BAND = 0.15  # benchmarks/memory_cpu.py


@dataclass(frozen=True)
class _Step:
    """The sizes of a step on a processor; bytes are those of a number in products and in what is trained."""

    recipe: Recipe
    model: Architecture
    tokens: int
    length: int
    width: int

    @property
    def full(self) -> bool:
        return self.recipe.lora is None

    @property
    def fed(self) -> int:
        """Bytes of a number in the feed-forward: experts are multiplied in what their weights are in."""
        held = FLOAT if self.full else counts.DTYPES[self.recipe.model.dtype]
        return max(self.width, held) if self.model.num_local_experts else self.width

    @property
    def inner(self) -> int:
        return self.model.num_attention_heads * self.model.head_dim

    @property
    def shared(self) -> int:
        return self.model.num_key_value_heads * self.model.head_dim

    @property
    def taken(self) -> int:
        """Experts that a token passes; 1 where there are none."""
        return max(1, self.model.num_experts_per_tok)


@dataclass(frozen=True)
class _Moment:
    """What is there beside weights, gradients and optimizer state."""

    activations: float = 0
    logits: float = 0
    copies: float = 0

    @property
    def total(self) -> float:
        return self.activations + self.logits + self.copies


def of(recipe: Recipe, machine: Machine, found: Architecture) -> Estimate:
    """Bytes of one process, for rows that fill `sequence_len` and are labelled throughout.

    Gradients count at every moment: the allocator does not give back what lies between them and the optimizer's state,
    and what is allocated next is of other sizes.
    """
    state, length = counts.state_of(recipe, found), recipe.prompt.sequence_len
    width = FLOAT if recipe.hardware.precision == "fp32" else 2
    step = _Step(recipe, found, recipe.training.micro_batch_size * length, length, width)
    most = max(_moments(step), key=lambda moment: moment.total)
    beside = around(recipe, most.activations + most.copies, _copied(step))
    return Estimate(
        state["weights"],
        state["gradients"],
        state["optimizer"],
        round(most.activations),
        round(most.logits),
        round(most.copies + _mapped(step)) + beside,
        0,
        BAND,
    )


def around(recipe: Recipe, passing: float, copied: float) -> int:
    """Bytes of the process beside its tensors, of which `passing` come and go in a step; large ones are given back.

    `copied` are the fp32 copies of adapters' inputs, over all layers.
    """
    process = WORKER + (ADAPTERS if recipe.lora else 0)
    if getattr(recipe.hardware, "zero_stage", None) is not None:
        process += DEEPSPEED
    return process + round(COPIED * copied if copied else SCATTERED * passing)


def _moments(step: _Step) -> tuple[_Moment, ...]:
    """The loss; the backward pass of the last layer, and of the first; the optimizer's step; validation."""
    training, words = step.recipe.training, step.model.vocab_size
    layers, layer = step.model.num_hidden_layers, step.tokens * _kept(step)
    kept, working = layers * layer, step.tokens * _backward(step)
    if training.gradient_checkpointing:
        kept = min(kept, layers * step.tokens * FLOAT * step.model.hidden_size)
        working += layer
    cast, largest = _cast(step), _largest(step)
    evaluated = max(step.length, EVALUATED) if step.recipe.evaluation.every_steps else 0
    return (
        _Moment(kept, 3 * FLOAT * step.tokens * words, cast),
        _Moment(kept + working, 0, cast),
        _Moment(working, 0, largest if step.model.tie_word_embeddings else 0),
        _Moment(0, 0, 2 * largest),
        _Moment(evaluated * _backward(step), 3 * FLOAT * evaluated * words),
    )


def _kept(step: _Step) -> float:
    """Bytes a token that a layer keeps for its backward pass, counted by torch's hooks on what autograd saves."""
    return _norms(step) + _inputs(step) + _attention(step) + _unit(step) + _merged(step) / step.tokens


def _norms(step: _Step) -> int:
    """Inputs of both norms in fp32 and, where their weights are trained, what those are multiplied with."""
    return (4 if step.full else 2) * FLOAT * step.model.hidden_size


def _inputs(step: _Step) -> int:
    """Inputs of products with weights that are trained, or that an adapter stands beside; autocast copies each anew."""
    hidden, width = step.model.hidden_size, step.width
    if step.full:
        attended, fed = 3, 2
    else:
        names = _adapted(step)
        attended = len(names & {"q_proj", "k_proj", "v_proj"})
        fed = len(names & {"gate_proj", "up_proj"}) + ("gate_up_proj" in names)
    if width == FLOAT:  # nothing is copied, so that what goes into several is kept once
        attended, fed = min(1, attended), min(1, fed)
    if step.model.num_local_experts:
        fed = min(1, fed)
    found = hidden * (width * attended + step.fed * step.taken * fed)
    if step.recipe.lora is not None:
        found += width * step.recipe.lora.r * len(_adapted(step))
        found += FLOAT * _dropped(step) if step.recipe.lora.dropout else 0
    return found


def _dropped(step: _Step) -> int:
    """Numbers of the mask that dropout keeps in front of each adapter."""
    wide = step.taken * step.model.intermediate_size
    sizes = {"o_proj": step.inner, "down_proj": wide}
    return sum(sizes.get(name, step.model.hidden_size) for name in _adapted(step))


def _merged(step: _Step) -> int:
    """Bytes of a layer's experts: where adapters stand beside them, PEFT adds both up anew in every forward pass."""
    if step.recipe.lora is None:
        return 0
    adapted = counts.adapted(step.recipe.lora, step.model)
    return step.fed * sum(
        linear.inputs * linear.outputs * (linear.experts or 1) for linear in adapted if linear.parameter
    )


def _attention(step: _Step) -> int:
    """Eager: queries, keys and values for every head, the result, and the softmax of each pair of positions.

    Otherwise the pairs are computed anew; rows of one length need no mask, packed ones do.
    """
    heads, width = step.model.num_attention_heads, step.width
    if step.recipe.model.attn_implementation == "eager":
        return 4 * width * step.inner + heads * step.length * (FLOAT if width == FLOAT else FLOAT + width)
    if step.recipe.prompt.packing:
        return 4 * width * step.inner + FLOAT * heads + width * step.length
    return 2 * width * (step.inner + step.shared) + FLOAT * heads


def _unit(step: _Step) -> int:
    """Of the gated unit: the gate before and after its activation, what it gates, and the product, if it is needed."""
    product = 1 if step.full or "down_proj" in _adapted(step) else 0
    return (3 + product) * step.fed * step.taken * step.model.intermediate_size


def _backward(step: _Step) -> float:
    """Bytes a token of the gradients that a layer's backward pass has at once."""
    unit = 3 * step.fed * step.taken * step.model.intermediate_size
    pairs = 0
    if step.recipe.model.attn_implementation == "eager":
        pairs = 2 * FLOAT * step.model.num_attention_heads * step.length
    return max(unit, pairs) + 2 * FLOAT * step.model.hidden_size


def _cast(step: _Step) -> int:
    """Copies in 16 bits that autocast makes of fp32 weights, until their backward pass: of all, or of the head."""
    if step.width == FLOAT:
        return 0
    if step.full:
        cast = (each for each in shapes.tensors(step.model) if not (each.matrix and each.matrix.experts))
        return step.width * sum(tensor.size * tensor.times for tensor in cast)
    head = step.model.vocab_size * step.model.hidden_size
    return step.width * head if step.recipe.model.dtype == "float32" else 0


def _largest(step: _Step) -> int:
    """Bytes of the largest tensor that is trained, whose update takes copies of it."""
    return FLOAT * max((tensor.size for tensor in shapes.tensors(step.model)), default=0) if step.full else 0


def _mapped(step: _Step) -> int:
    """The file's fp32 weights that adapters have copied in bf16: they stay in memory while the file is mapped."""
    if step.full or step.width == FLOAT or step.recipe.model.dtype != "float32" or step.recipe.quantization.load:
        return 0
    adapted = counts.adapted(step.recipe.lora, step.model) if step.recipe.lora else {}
    return sum(FLOAT * linear.inputs * linear.outputs * layers for linear, layers in adapted.items())


def _copied(step: _Step) -> int:
    """Bytes of the fp32 copies of adapters' inputs that one step makes, one after the other."""
    if step.recipe.lora is None or step.width == FLOAT:
        return 0
    adapted = counts.adapted(step.recipe.lora, step.model)
    return FLOAT * step.tokens * sum(linear.inputs * layers for linear, layers in adapted.items())


def _adapted(step: _Step) -> set[str]:
    return {linear.name for linear in counts.adapted(step.recipe.lora, step.model)} if step.recipe.lora else set()
