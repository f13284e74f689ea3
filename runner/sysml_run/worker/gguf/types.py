"""The type that llama.cpp's quantizer gives each tensor (`llama_tensor_get_type` in its src/llama-quant.cpp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

USUAL: Mapping[str, str] = {
    **{plain: plain for plain in ("F32", "F16", "BF16", "Q8_0", "Q6_K")},
    "Q5_K_M": "Q5_K",
    "Q4_K_M": "Q4_K",
}
NARROW: Mapping[str, str] = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # for rows that no K-quant fits
PLAIN = ("F32", "F16", "BF16")
K_BLOCK, BLOCK = 256, 32  # weights that are quantized together, in K-quants and in the others
OF_70B = 80  # layers; with grouped heads llama.cpp takes such a model for the 70B one


@dataclass(frozen=True)
class Model:
    """What of a model the types depend on; experts are 0 in a dense one."""

    layers: int
    heads: int
    kv_heads: int
    experts: int
    tied: bool


def tensor_type(kind: str, name: str, shape: Sequence[int], model: Model) -> str:
    """The type of the tensor `name` (GGUF's) in a file of `kind`; what is 1-D, and routers, are always F32.

    `shape` ends with the length of a row.
    """
    if len(shape) < 2 or name.endswith("ffn_gate_inp.weight"):
        return "F32"
    if kind in PLAIN:
        return kind
    return fitting(wanted(kind, name, shape[-1], model), shape[-1])


def wanted(kind: str, name: str, width: int, model: Model) -> str:
    """The type before it is asked whether a row of `width` fits it."""
    usual = USUAL[kind]
    if name == "output.weight" or (model.tied and name == "token_embd.weight"):
        return "Q8_0" if kind == "Q8_0" or width % K_BLOCK else "Q6_K"
    if not name.startswith("blk."):
        return usual
    _, layer, part = name.split(".")[:3]
    finer = kind in ("Q4_K_M", "Q5_K_M") and more_bits(int(layer), model.layers)
    if model.experts == 8 and part in ("attn_k", "attn_v"):
        return "Q8_0"
    if model.experts == 8 and part == "attn_output" and kind == "Q4_K_M":
        return "Q5_K"
    if part in ("attn_v", "ffn_down", "ffn_down_exps") and finer:
        return "Q6_K"
    large = model.layers == OF_70B and model.kv_heads < model.heads
    return "Q5_K" if part == "attn_v" and large and usual == "Q4_K" else usual


def more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def fitting(kind: str, width: int) -> str:
    """The type, or what stands in for it where rows of `width` cannot be cut into its blocks."""
    if kind.endswith("_K") and width % K_BLOCK:
        kind = NARROW[kind]
    return "F16" if width % BLOCK else kind
