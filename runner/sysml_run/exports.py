"""Quantized copies of the finished model: their names, what each way can make, and the bytes they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from . import counts
from .architecture import Architecture
from .errors import UsageError
from .recipe import Gguf, Gptq, Recipe

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


@dataclass(frozen=True)
class Room:
    """Bytes that the stages after training take: on disk, the `copies` of it alone, `published` beside, and of memory.

    Where a file system lets files share blocks it is less.
    """

    disk: int
    copies: int
    published: int
    memory: int


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


def room(recipe: Recipe) -> Room | None:
    """For weights as trained, merged and packed, for every copy and that in the package, and the model once in fp32.

    That is in memory, and on disk for reading a GGUF file without llama-cpp-python.
    None without exports, and where the model's size is not known.
    """
    if not recipe.quantization.export:
        return None
    try:
        found = counts.parameters(recipe)
    except (UsageError, OSError):  # said where the model is looked at
        return None
    if found is None:
        return None
    whole = found.total * counts.DTYPES[recipe.model.dtype]
    copies = sum(int(found.total * bits(export) / 8) for export in recipe.quantization.export)
    ggufs = any(isinstance(export, Gguf) for export in recipe.quantization.export)
    scratch = 4 * found.total if ggufs and find_spec("llama_cpp") is None else 0
    made = 2 * copies + scratch
    published = 0 if recipe.artifacts.dir is None else whole + copies
    return Room(2 * whole + made, made, published, 4 * found.total)


def bits(export: Gguf | Gptq) -> float:
    """About so many of a weight, its share of the scales included; tied and small tensors take more."""
    if isinstance(export, Gguf):
        return WIDTHS[export.type]
    return export.bits + 24 / export.group_size


def short(
    recipe: Recipe, disk: int, memory: int, *, started: bool = False, beside: bool = False
) -> Iterator[tuple[str, str]]:
    """What of the free bytes on disk and of the machine's memory does not suffice, and what helps.

    A run that was `started` has its weights already, or some of them; `beside` it, on the same disk, it is published.
    """
    needed = room(recipe)
    if needed is None:
        return
    wanted = (needed.copies if started else needed.disk) + beside * needed.published
    if wanted > disk:
        message = f"weights and their quantized copies take {gb(wanted)} on disk, {gb(disk)} are free"
        yield message, "make room, or put runs on another disk with --runs DIR"
    if needed.memory > memory:
        message = f"comparing quantized copies takes {gb(needed.memory)} of memory, this machine has {gb(memory)}"
        yield message, "remove quantization.export, and export on a larger machine with --only quantize --resume"


def gb(size: int) -> str:
    """Decimal gigabytes."""
    return f"{size / 1e9:.1f} GB"
