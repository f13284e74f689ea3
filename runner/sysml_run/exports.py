"""Quantized copies of the finished model: their names, what each way can make, and the bits of a weight."""

from __future__ import annotations

from collections.abc import Mapping

from .architecture import Architecture
from .recipe import Gguf, Gptq

# transformers' name of an architecture: the name that llama.cpp loads it by.
GGUF_MODELS: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
GPTQ_MODELS = ("llama", "mistral", "mixtral", "qwen2", "qwen3")
GROUPS = (16, 32, 64, 128, 256, 512, 1024)  # group sizes that GPTQModel's kernels read
K_QUANTS = ("Q4_K_M", "Q5_K_M", "Q6_K")
WIDTHS: Mapping[str, float] = {  # bits of a weight, scales included; a few tensors of a file have more
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "Q8_0": 8.5,
    "Q6_K": 6.6,
    "Q5_K_M": 5.7,
    "Q4_K_M": 4.9,
}


def name(export: Gguf | Gptq) -> str:
    """Of the copy's folder below `quantized/`: `gguf-Q4_K_M`, `gptq-4bit-g128`."""
    if isinstance(export, Gguf):
        return f"gguf-{export.type}"
    return f"gptq-{export.bits}bit-g{export.group_size}"


def libraries(export: Gguf | Gptq) -> tuple[str, ...]:
    """What makes the copy, by the names they are imported by."""
    if isinstance(export, Gptq):
        return ("gptqmodel", "optimum")
    return ("gguf", "libgguf") if export.type in K_QUANTS else ("gguf",)


def models(export: Gguf | Gptq) -> tuple[str, ...]:
    """The architectures it can be made of."""
    return GPTQ_MODELS if isinstance(export, Gptq) else tuple(GGUF_MODELS)


def widths(model: Architecture) -> tuple[int, ...]:
    """Weights in a row of each kind of matrix that is quantized; none where the model's sizes are not known."""
    found = (model.hidden_size, model.head_dim * model.num_attention_heads, model.intermediate_size)
    return tuple(sorted({width for width in found if width}))


def bits(export: Gguf | Gptq) -> float:
    """About so many of a weight, its share of the scales included; tied and small tensors take more."""
    if isinstance(export, Gguf):
        return WIDTHS[export.type]
    return export.bits + 24 / export.group_size
