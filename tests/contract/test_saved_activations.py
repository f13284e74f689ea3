"""What a layer is said to keep for its backward pass, against what torch really keeps of transformers' and PEFT's."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from sysml_run import architecture, document, overrides
from sysml_run.estimate import layers, recipes
from sysml_run.estimate.step import State
from sysml_run.resolve import resolve

SIZES = {"vocab_size": 64, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROWS, LENGTH = 2, 96  # no product of both is a size of the model, so that copies of weights can be told apart
TEXT = """\
version: 1
name: kept
model: {base_model: tiny:llama, dtype: bfloat16, kernels: torch}
datasets: [{path: /rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-4}
training: {max_steps: 1}
"""
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
AUTOCAST, DEEPSPEED = "{accelerator: gpu, zero_stage: null}", "{accelerator: gpu, zero_stage: 2}"
SINGLE = "{accelerator: gpu, precision: fp32, zero_stage: null}"
CASES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {  # kind, hardware, attention, what has an adapter
    "full, autocast": ("llama", AUTOCAST, "sdpa", ()),
    "full, autocast, eager": ("llama", AUTOCAST, "eager", ()),
    "full, 16 bits": ("llama", DEEPSPEED, "sdpa", ()),
    "full, 16 bits, eager": ("qwen2", DEEPSPEED, "eager", ()),
    "full, fp32": ("llama", SINGLE, "sdpa", ()),
    "experts, autocast": ("mixtral", AUTOCAST, "sdpa", ()),
    "experts, 16 bits": ("mixtral", DEEPSPEED, "sdpa", ()),
    "adapters, autocast": ("llama", AUTOCAST, "sdpa", ALL),
    "adapters, 16 bits": ("llama", DEEPSPEED, "sdpa", ALL),
    "adapters on two": ("mistral", AUTOCAST, "sdpa", ("q_proj", "v_proj")),
    "adapters on attention, eager": ("llama", AUTOCAST, "eager", ALL[:4]),
    "adapters beside experts": ("mixtral", AUTOCAST, "sdpa", ALL[:4]),
}


def config(kind: str) -> dict[str, int]:
    return SIZES | HEADS | (EXPERTS if kind == "mixtral" else {})


def built(kind: str, hardware: str, attention: str, targets: tuple[str, ...]) -> Any:
    whole = hardware == SINGLE or (hardware == AUTOCAST and not targets)
    made = AutoConfig.for_model(kind, **config(kind))
    dtype = torch.float32 if whole else torch.bfloat16
    model = AutoModelForCausalLM.from_config(made, dtype=dtype, attn_implementation=attention)
    if not targets:
        return model.model
    adapter = LoraConfig(r=1, lora_dropout=0.0, target_modules=list(targets), task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, adapter, autocast_adapter_dtype=hardware == AUTOCAST)
    adapted.enable_input_require_grads()
    return adapted.base_model.model.model


def kept(model: Any, number: int, *, autocast: bool) -> int:
    """Bytes that autograd keeps of the first layers, weights and copies of them aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    shapes |= {shape[::-1] for shape in shapes if len(shape) > 1}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own and tuple(tensor.shape) not in shapes:
            found[place] = tensor
        return tensor

    every, model.layers = model.layers, model.layers[:number]
    ids = torch.ones(ROWS, LENGTH, dtype=torch.long)
    padded = ids.clone()
    padded[0, :5] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        result = model(input_ids=ids, attention_mask=padded, use_cache=False)
    model.layers = every
    assert result.last_hidden_state.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("name", CASES)
def test_what_a_layer_keeps(name: str) -> None:
    kind, hardware, attention, targets = CASES[name]
    lora = f"{{r: 1, dropout: 0.0, target_modules: [{', '.join(targets)}]}}" if targets else "null"
    changes = [f"lora={lora}", f"hardware={hardware}", f"model.attn_implementation={attention}"]
    changes += [f"training.micro_batch_size={ROWS}", f"prompt.sequence_len={LENGTH}"]
    recipe = resolve(overrides.apply(document.parse(TEXT, "kept.yaml"), changes)).recipe
    found = architecture.read({"model_type": kind, **config(kind)}, "the test")
    step = recipes.describe(recipe, found, State(0, 0, 0))
    model = built(kind, hardware, attention, targets).train()
    two, four = (kept(model, number, autocast=recipes.autocasts(recipe)) for number in (2, 4))
    assert layers.kept(step) * step.tokens == pytest.approx((four - two) / 2, rel=0.02)
