"""One training step on one device, in numbers: what a recipe, and a run that others have published, both map to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sysml_run.architecture import Architecture

Kept = Literal["all", "some", "inputs"]  # of a layer's results until its backward pass: "inputs" is full checkpointing
Attention = Literal["flash", "sdpa", "masked", "eager"]  # "masked": torch's fused attention beside a mask
Loss = Literal["plain", "copied", "taught", "chunked", "fused", "none"]


@dataclass(frozen=True)
class State:
    """Bytes on one device between steps, gradients included; `host` is what lies in its machine's memory instead."""

    weights: int
    gradients: int
    optimizer: int
    host: int = 0


@dataclass(frozen=True)
class Step:
    """Everything the peak of a step depends on.

    `tokens` are the rows of a micro batch times their length, `attended` the length that attention sees, and `scored`
    the positions that logits are computed for. `width` is the bytes of a number in products, `stream` in what layers
    hand to each other. `held` counts for each name of a linear layer the bytes of an input number that its backward
    pass keeps; a layer that is not there keeps none.
    """

    model: Architecture
    state: State
    tokens: int
    attended: int
    scored: int
    width: int = 2
    stream: int = 2
    held: Mapping[str, float] = field(default_factory=dict)
    kept: Kept = "inputs"
    attention: Attention = "sdpa"
    loss: Loss = "plain"
    gated: bool = True
    fused: bool = False  # norms and gated units are computed anew from their inputs: Liger, torch.compile
    trained: bool = False  # all weights, and not adapters
    widened: bool = False  # adapters take their input in fp32, which is a copy of it
    dropout: bool = False  # in attention and on what layers give, as in BERT
    offloaded: bool = False  # the inputs of layers, to the machine's memory
    accumulated: bool = False  # gradients of earlier micro batches are there
    gathered: int = 0  # bytes of weights that are whole for a while, where devices hold shares
    buffers: int = 0  # bytes in which gradients are exchanged
    made: int = 0  # bytes of matrices that are made to be used once: a layer's that are quantized
    folded: int = 0  # bytes of a layer's weights in which adapters are folded anew, which the backward pass needs
    updating: int = 0  # bytes that the optimizer's step takes beside its state
    context: int = 0  # bytes of the driver and of libraries, which no allocator counts
    cast: int = 0  # bytes of copies of weights in 16 bits, kept from the forward to the backward pass
    varied: bool = False  # what is reserved is asked for, and lengths change from step to step
    limit: int | None = None  # bytes of the card, at which the allocator gives back what it does not use
