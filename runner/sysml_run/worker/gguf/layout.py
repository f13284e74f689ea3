"""Which weights of a Hugging Face folder make which tensors of a GGUF file, and the sizes that stand in its header."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sysml_run.errors import StageError
from sysml_run.exports import GGUF_MODELS

from .types import Model

ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
}
EXPERT = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
IN_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
IN_EXPERT = re.compile(r"block_sparse_moe\.experts\.(\d+)\.(w[123])")
ROPES = ("default", "linear", "llama3")  # ways to stretch positions that the header can say


@dataclass(frozen=True)
class Part:
    """One tensor of the file: its `sources`, several where the experts of a layer are stacked.

    `heads` is the number of heads whose rows change places, 0 where none do.
    """

    name: str
    sources: tuple[str, ...]
    heads: int = 0


def parts(names: Iterable[str], config: Mapping[str, Any]) -> list[Part]:
    """The tensors of the file in its order. Raises StageError for a weight of no known place, or one that is missing.

    llama.cpp turns neighbouring numbers of a head where transformers turns halves, but for Qwen.
    """
    found: dict[str, dict[int, str]] = {}
    for name in names:
        target, place = located(name)
        if target != "output.weight" or not config.get("tie_word_embeddings"):
            found.setdefault(target, {})[place] = name
    heads = {"attn_q": config["num_attention_heads"], "attn_k": kv_heads(config)} if turned(config) else {}
    made = [
        Part(target, tuple(name for _, name in sorted(places.items())), heads.get(target.split(".")[-2], 0))
        for target, places in sorted(found.items(), key=lambda item: order(item[0]))
    ]
    short = [part.name for part in made if "_exps" in part.name and len(part.sources) != config["num_local_experts"]]
    missing = short + [name for name in ("token_embd.weight", "output_norm.weight") if name not in found]
    if missing:
        raise StageError(f"weights are missing of {', '.join(missing)}", "run the stage that writes them again")
    return made


def located(name: str) -> tuple[str, int]:
    """GGUF's name of a weight, and the expert it is of (0 outside of experts). Raises StageError."""
    if name in ENDS:
        return ENDS[name], 0
    inside = IN_LAYER.fullmatch(name)
    if inside is not None:
        layer, part, kind = inside.groups()
        expert = IN_EXPERT.fullmatch(part)
        if expert is not None:
            return f"blk.{layer}.{EXPERT[expert[2]]}.{kind}", int(expert[1])
        if part in LAYER:
            return f"blk.{layer}.{LAYER[part]}.{kind}", 0
    raise StageError(f"a GGUF file has no place for the weight {name}", "remove this export from quantization.export")


def order(target: str) -> tuple[int, str]:
    """Layer by layer, what stands outside of layers first."""
    return (int(target.split(".")[1]), target) if target.startswith("blk.") else (-1, target)


def turned(config: Mapping[str, Any]) -> bool:
    return GGUF_MODELS[config["model_type"]] == "llama"


def kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def model(config: Mapping[str, Any], names: Iterable[str]) -> Model:
    """What the types depend on."""
    experts = int(config.get("num_local_experts", 0)) if config["model_type"] == "mixtral" else 0
    heads, tied = config["num_attention_heads"], "output.weight" not in names
    return Model(config["num_hidden_layers"], heads, kv_heads(config), experts, tied)


def header(writer: Any, config: Mapping[str, Any]) -> None:
    """Write the sizes. Raises StageError for positions that are stretched in a way that llama.cpp has no key for."""
    import gguf

    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(kv_heads(config))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(head_size(config))
    writer.add_rope_freq_base(rope(config)["rope_theta"])
    if rope(config)["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope(config)["factor"])
    if config["model_type"] == "mixtral":
        writer.add_expert_count(config["num_local_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])


def rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions turn, as transformers 5 writes it or as it was written before. Raises StageError."""
    old = config.get("rope_scaling") or {}
    found = {"rope_theta": config.get("rope_theta", 10000.0), **old, **(config.get("rope_parameters") or {})}
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    if found["rope_type"] not in ROPES:
        message = f"positions stretched by {found['rope_type']} are not converted to GGUF"
        raise StageError(message, "remove this export from quantization.export")
    return found


def rope_factors(config: Mapping[str, Any]) -> list[float] | None:
    """By how much Llama 3.1 and later slow each pair of numbers of a head; None for others.

    As in transformers' `_compute_llama3_parameters`; llama.cpp reads it as the tensor `rope_freqs.weight`.
    """
    found, size = rope(config), head_size(config)
    if found["rope_type"] != "llama3":
        return None
    low, high, factor = found["low_freq_factor"], found["high_freq_factor"], found["factor"]
    known = found["original_max_position_embeddings"]
    factors = []
    for pair in range(0, size, 2):
        wave = 2 * math.pi * found["rope_theta"] ** (pair / size)
        smooth = min(1.0, max(0.0, (known / wave - low) / (high - low)))
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
