"""The bytes that an optimizer keeps for a tensor between steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .shapes import Tensor

BLOCK_8BIT, SMALL_8BIT = 256, 4096  # bitsandbytes: numbers with one scale; smaller tensors are kept in 32 bits


def size(name: str, tensor: Tensor, width: int) -> int:
    """Of one tensor whose numbers have `width` bytes; transformers keeps that of embeddings in 32 bits in any case."""
    embedding = tensor.matrix is not None and tensor.matrix.name == "embed_tokens"
    return STATE[name.removesuffix("_8bit") if embedding else name](tensor, width)


def _eight_bit(moments: int) -> Callable[[Tensor, int], int]:
    """A byte a number and an fp32 scale a block, for each moment (Dettmers et al. 2022, as in bitsandbytes 0.50)."""

    def found(tensor: Tensor, width: int) -> int:
        if tensor.size < SMALL_8BIT:
            return 4 * moments * tensor.size
        return moments * (tensor.size + 4 * math.ceil(tensor.size / BLOCK_8BIT))

    return found


def _adafactor(tensor: Tensor, width: int) -> int:
    """The means of rows and of columns (Shazeer and Stern 2018); a vector's state is as large as itself."""
    if len(tensor.shape) == 1:
        return width * tensor.size
    return width * (tensor.size // tensor.shape[-1] + tensor.size // tensor.shape[-2])


STATE: Mapping[str, Callable[[Tensor, int], int]] = {
    "adamw": lambda tensor, width: 2 * width * tensor.size,
    "adamw_8bit": _eight_bit(2),
    "lion": lambda tensor, width: 4 * tensor.size,
    "lion_8bit": _eight_bit(1),
    "adafactor": _adafactor,
    "sgd": lambda tensor, width: 0,  # a recipe's SGD has no momentum
}
