"""What a model is built of, from its config.json, its .gguf header or the shipped catalogue; opens no socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from . import gguf_header, resources
from .caches import snapshot
from .errors import UsageError
from .modelref import VOCABULARY, ModelRef, locate
from .recipe import Model

FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias")
COMMON = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False}
# What transformers takes for a key that config.json leaves out; a type that is not here is known by name alone.
DEFAULTS: Mapping[str, Mapping[str, int | bool]] = {
    "llama": COMMON
    | {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048}
    | {"attention_bias": False, "mlp_bias": False},
    "mistral": COMMON
    | {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072, "num_key_value_heads": 8},
    "mixtral": COMMON
    | {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072, "num_key_value_heads": 8}
    | {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2": COMMON
    | {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768, "num_key_value_heads": 32},
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
TINY_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GGUF_KEYS = {  # config.json's name: the name after the architecture's in a .gguf file
    "vocab_size": "vocab_size",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """`model_type` ("" when none is named) and the sizes of config.json; `source` is where they were read.

    Sizes are 0 for a type that is not in DEFAULTS; experts are 0 in a dense model.
    """

    model_type: str
    source: str
    vocab_size: int = 0
    hidden_size: int = 0
    intermediate_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    head_dim: int = 0
    num_local_experts: int = 0
    num_experts_per_tok: int = 0
    max_position_embeddings: int = 0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


def find(model: Model) -> Architecture | None:
    """The base model's architecture; None for a hub model of which nothing is at hand.

    Raises UsageError for a model that is named and absent, and for files that cannot be read.
    """
    found = named(model.base_model, model.revision)
    if found is None or model.tokenizer is None or locate(model.base_model).kind != "tiny":
        return found
    size = _vocabulary(locate(model.tokenizer))  # a tiny model is made to fit its tokenizer
    return None if size is None else replace(found, vocab_size=size)


def named(name: str, revision: str | None = None) -> Architecture | None:
    """The architecture of a model in any form that base_model takes. Raises as `find` does."""
    ref = locate(name)
    match ref.kind:
        case "folder":
            return _config(ref.path / "config.json")
        case "gguf":
            return _gguf(ref.path)
        case "tiny":
            return read({"model_type": ref.where, "vocab_size": VOCABULARY, **tiny(ref.where)}, name)
        case "hub":
            return _hub(name, revision)


def tiny(model_type: str) -> dict[str, int]:
    """The sizes of the tiny random model of an architecture, all but its vocabulary's."""
    return TINY | (TINY_EXPERTS if model_type == "mixtral" else {})


def gated(name: str) -> bool:
    """Whether a hub model is known to be given only to those who asked; False for one not in the catalogue."""
    return bool(catalogue().get(name, {}).get("gated"))


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """Well-known hub models by id: `source`, `gated`, `config`, and the number of `parameters` as published."""
    shipped = json.loads((resources.PACKAGE / "catalogue" / "models.json").read_text(encoding="utf-8"))
    return {
        name: {**row, "source": shipped["source"].format(name=name), "config": row["config"] | own}
        for row in shipped["rows"]
        for name, own in row["models"].items()
    }


def read(config: Mapping[str, Any], source: str) -> Architecture:
    """What transformers builds from the values of a config.json. Raises UsageError for a value of no use."""
    model_type = str(config.get("model_type", ""))
    if model_type not in DEFAULTS:
        return Architecture(model_type, source)
    values: dict[str, Any] = {**DEFAULTS[model_type]}
    for key in (*values, "head_dim", "num_key_value_heads"):
        if key in config:
            values[key] = _checked(key, config[key], source)
    heads = values["num_attention_heads"]
    values["num_key_value_heads"] = values.get("num_key_value_heads") or heads
    values["head_dim"] = values.get("head_dim") or values["hidden_size"] // heads
    return Architecture(model_type, source, **values)


def _checked(key: str, value: Any, source: str) -> Any:
    nullable = key in ("head_dim", "num_key_value_heads")
    wanted = isinstance(value, bool) if key in FLAGS else type(value) is int and value > 0
    if wanted or (nullable and value is None):
        return value
    words = "true or false" if key in FLAGS else "a whole number above 0"
    raise UsageError(f"{source}: {key} is {value!r} where {words} is meant", "take the file from the model's publisher")


def _config(file: Path) -> Architecture:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    return read(config, str(file))


def _gguf(path: Path) -> Architecture:
    try:
        seen = path.stat()
    except OSError:  # said by the reader
        return _header(path, 0, 0)
    return _header(path, seen.st_size, seen.st_mtime_ns)


@cache
def _header(path: Path, size: int, changed: int) -> Architecture:
    """As transformers builds it from the header: tied where there is no output matrix, as many words as tokens.

    The header of one file is read once: it has the whole vocabulary, and a plan asks many times.
    """
    header = gguf_header.read(path)
    name = str(header.metadata.get("general.architecture", ""))
    found = {key: header.metadata.get(f"{name}.{gguf}") for key, gguf in GGUF_KEYS.items()}
    if name in ("llama", "mistral"):
        found["head_dim"] = header.metadata.get(f"{name}.rope.dimension_count")
    experts = found["num_local_experts"]
    config: dict[str, Any] = {key: value for key, value in found.items() if value is not None}
    config["model_type"] = "mixtral" if name == "llama" and experts else name
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    if "vocab_size" not in config and "tokenizer.ggml.tokens" in header.lengths:
        config["vocab_size"] = header.lengths["tokenizer.ggml.tokens"]
    return read(config, str(path))


def _hub(name: str, revision: str | None) -> Architecture | None:
    folder = snapshot(name, revision)
    if folder is not None and (folder / "config.json").is_file():
        return _config(folder / "config.json")
    row = catalogue().get(name)
    return None if row is None else read(row["config"], "the catalogue")


def _vocabulary(ref: ModelRef) -> int | None:
    """Tokens of a tokenizer that is named by itself, where they can be counted without its library."""
    if ref.kind == "tiny":
        return VOCABULARY
    return _gguf(ref.path).vocab_size or None if ref.kind == "gguf" else None
