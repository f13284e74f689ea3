"""What an optimizer keeps for one tensor."""

from __future__ import annotations

import pytest

from sysml_run import optimizerstate
from sysml_run.shapes import Linear, Tensor

WORDS = Linear("model.embed_tokens", 1000, 64, 1)


@pytest.mark.parametrize(
    ("name", "shape", "width", "size"),
    [
        ("adamw", (64, 128), 2, 4 * 64 * 128),
        ("adamw", (64, 128), 4, 8 * 64 * 128),
        ("lion", (64, 128), 2, 4 * 64 * 128),
        ("adamw_8bit", (64, 128), 4, 2 * (64 * 128 + 4 * 32)),
        ("adamw_8bit", (4095,), 4, 8 * 4095),
        ("lion_8bit", (4097,), 4, 4097 + 4 * 17),
        ("adafactor", (8, 64, 128), 4, 4 * 8 * (64 + 128)),
        ("adafactor", (64,), 2, 2 * 64),
        ("sgd", (64, 128), 4, 0),
    ],
)
def test_bytes(name: str, shape: tuple[int, ...], width: int, size: int) -> None:
    assert optimizerstate.size(name, Tensor(shape), width) == size


def test_embeddings_are_not_kept_in_8_bits() -> None:
    assert optimizerstate.size("adamw_8bit", Tensor((1000, 64), 1, WORDS), 4) == 8 * 64_000
