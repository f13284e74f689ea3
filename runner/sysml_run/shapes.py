"""The weight tensors of an architecture, and the matrices among them that an adapter can stand beside.

As transformers 5.23 builds llama, mistral, mixtral and qwen2: the experts of a layer are one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .architecture import DEFAULTS, Architecture

LAYER = "model.layers.{}."
ENDS = ("embed_tokens", "lm_head")  # between tokens and vectors; no group of target modules has them


@dataclass(frozen=True, slots=True)
class Tensor:
    """`times` tensors of one shape; `matrix` is the linear layer whose weight it is, None for biases and norms."""

    shape: tuple[int, ...]
    times: int = 1
    matrix: Linear | None = None

    @property
    def size(self) -> int:
        """Numbers in one of them."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer, `path` with {} for the number of its decoder layer, of which there are `layers`.

    `experts` share one tensor, None where there are none, and `fused` matrices of one expert lie in it side by side.
    `named`: the model has a module of this name. `parameter`: PEFT adapts the weight and not the module.
    """

    path: str
    inputs: int
    outputs: int
    layers: int
    experts: int | None = None
    fused: int = 1
    bias: bool = False
    named: bool = True
    parameter: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight: outputs x inputs, after the experts where there are any."""
        sizes = (self.inputs, self.outputs) if self.name == "embed_tokens" else (self.outputs, self.inputs)
        return sizes if self.experts is None else (self.experts, *sizes)

    def paths(self) -> Iterator[str]:
        """The full name in each decoder layer."""
        return (self.path.format(number) for number in range(self.layers))


def known(architecture: Architecture | None) -> bool:
    """Whether the tensors of such a model are known here."""
    return architecture is not None and architecture.model_type in DEFAULTS


def tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    """Every tensor of the model, one that is tied counted once."""
    hidden, layers = architecture.hidden_size, architecture.num_hidden_layers
    tied = architecture.tie_word_embeddings
    found = [Tensor((hidden,), 2 * layers + 1)]  # two norms a layer and the last one
    for linear in linears(architecture):
        if not (tied and linear.name == "lm_head"):
            found.append(Tensor(linear.shape, linear.layers, linear))
        if linear.bias:
            found.append(Tensor((linear.outputs,), linear.layers))
    return tuple(found)


def linears(architecture: Architecture) -> tuple[Linear, ...]:
    """Every matrix that PEFT 0.21.2 can adapt; the router and the experts of Mixtral it adapts as parameters."""
    size, words = architecture, architecture.vocab_size
    inner = size.num_attention_heads * size.head_dim
    shared = size.num_key_value_heads * size.head_dim
    qkv = size.attention_bias or size.model_type == "qwen2"

    def attention(name: str, inputs: int, outputs: int, bias: bool) -> Linear:
        return Linear(f"{LAYER}self_attn.{name}", inputs, outputs, size.num_hidden_layers, bias=bias)

    return (
        Linear("model.embed_tokens", words, size.hidden_size, 1),
        attention("q_proj", size.hidden_size, inner, qkv),
        attention("k_proj", size.hidden_size, shared, qkv),
        attention("v_proj", size.hidden_size, shared, qkv),
        attention("o_proj", inner, size.hidden_size, size.attention_bias),
        *(_experts(size) if size.model_type == "mixtral" else _dense(size)),
        Linear("lm_head", size.hidden_size, words, 1),
    )


def _dense(size: Architecture) -> tuple[Linear, ...]:
    wide, layers, bias = size.intermediate_size, size.num_hidden_layers, size.mlp_bias
    return (
        Linear(f"{LAYER}mlp.gate_proj", size.hidden_size, wide, layers, bias=bias),
        Linear(f"{LAYER}mlp.up_proj", size.hidden_size, wide, layers, bias=bias),
        Linear(f"{LAYER}mlp.down_proj", wide, size.hidden_size, layers, bias=bias),
    )


def _experts(size: Architecture) -> tuple[Linear, ...]:
    """The router is a module without being a linear layer; the experts' two tensors are no modules at all."""
    hidden, wide, layers = size.hidden_size, size.intermediate_size, size.num_hidden_layers
    experts = size.num_local_experts
    inside = f"{LAYER}mlp.experts."
    return (
        Linear(f"{LAYER}mlp.gate", hidden, experts, layers, parameter=True),
        Linear(f"{inside}gate_up_proj", hidden, 2 * wide, layers, experts, fused=2, named=False, parameter=True),
        Linear(f"{inside}down_proj", wide, hidden, layers, experts, named=False, parameter=True),
    )
