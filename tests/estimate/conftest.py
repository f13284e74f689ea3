"""A step to begin with."""

from __future__ import annotations

import pytest

from sysml_run.architecture import Architecture
from sysml_run.estimate.step import State, Step

LLAMA = Architecture(
    "llama",
    "the test",
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
)


@pytest.fixture
def step() -> Step:
    """Llama 3 8B, trained whole in bf16 on 2 rows of 2048 tokens."""
    number = 8_030_261_248
    return Step(
        LLAMA,
        State(2 * number, 2 * number, 4 * number),
        tokens=4096,
        attended=2048,
        scored=4096,
        held={"qkv": 2, "o_proj": 2, "unit": 2, "down_proj": 2},
        trained=True,
    )
