"""What computes a model is told from the model itself, and Liger's parts take their places where they are installed."""

from __future__ import annotations

import importlib.util
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sysml_run.worker import fused

SMALL = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, attn_implementation="sdpa",
)  # fmt: skip


def recipe(**model: str):
    return SimpleNamespace(model=SimpleNamespace(**{"attn_implementation": "auto", "kernels": "auto", **model}))


def test_torchs_own() -> None:
    model = LlamaForCausalLM(deepcopy(SMALL))
    fused.apply(recipe(kernels="torch"), model)
    assert fused.facts(model) == {"attention": "sdpa", "kernels": "torch", "liger_modules": 0}


def test_a_part_that_runs_other_code_is_seen() -> None:
    model = LlamaForCausalLM(deepcopy(SMALL))

    def forward(self, hidden):
        return hidden

    forward.__module__ = "liger_kernel.transformers.rms_norm"
    model.model.norm.forward = forward.__get__(model.model.norm)
    assert fused.facts(model) == {"attention": "sdpa", "kernels": "liger", "liger_modules": 1}


def test_flash_attention_from_the_hub_is_flash_attention() -> None:
    model = LlamaForCausalLM(deepcopy(SMALL))
    model.config._attn_implementation_internal = "kernels-community/flash-attn2"
    assert fused.facts(model)["attention"] == "flash_attention_2"


def test_what_is_left_open_is_not_wanted() -> None:
    assert fused.wanted(recipe()) == {}
    assert fused.wanted(recipe(kernels="liger")) == {"kernels": "liger"}
    assert fused.wanted(recipe(attn_implementation="eager")) == {"attention": "eager"}


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger_kernel is not installed")
def test_ligers_parts_are_in_their_places() -> None:
    model = LlamaForCausalLM(deepcopy(SMALL))
    fused.apply(recipe(kernels="liger"), model)
    assert fused.facts(model)["liger_modules"] == 2 * 3 + 1  # in each layer two norms and the gated unit; the last norm
    assert model.forward.__func__ is LlamaForCausalLM.forward, "the loss stays ours"
    assert torch.is_tensor(model.model.norm.weight)
