"""A GGUF file as an ordinary Hugging Face folder: dequantized safetensors, and a tokenizer that splits as it did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sysml_run.errors import StageError


def facts(path: Path) -> dict[str, Any]:
    """Licence, name and languages from the file's own metadata."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    names = ("license", "name", "languages")
    return {name: fields[f"general.{name}"].contents() if f"general.{name}" in fields else None for name in names}


def convert_model(path: Path, folder: Path, dtype: str) -> None:
    """Write the dequantized weights as safetensors, with their config.

    A model loaded from GGUF refuses `save_pretrained`, so its weights are saved through an empty model of the same
    configuration. Raises StageError for a mixture of experts, which transformers would read as a dense model with
    random weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if experts(path):
        hint = "name the model's hub id or its folder of safetensors"
        raise StageError(f"{path} holds a mixture of experts, which cannot be read from GGUF", hint)
    loaded, info = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=getattr(torch, dtype), output_loading_info=True
    )
    refuse_missing(info, path)
    config = loaded.config
    del config.quantization_config
    config._name_or_path = path.stem
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    empty.generation_config = loaded.generation_config
    weights = loaded.state_dict()
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    empty.save_pretrained(folder, state_dict=weights)


def refuse_missing(info: Mapping[str, Any], where: Path) -> None:
    """Raise StageError when weights were not in the files: transformers fills them with random numbers."""
    names = sorted(info["missing_keys"])
    if names:
        raise StageError(f"{len(names)} weights are missing from {where}: {', '.join(names[:3])} …")


def experts(path: Path) -> int:
    """Number of experts in a layer; 0 for a dense model."""
    from gguf import GGUFReader

    found = [field for name, field in GGUFReader(path).fields.items() if name.endswith(".expert_count")]
    return int(found[0].contents()) if found else 0


def convert_tokenizer(path: Path, folder: Path) -> None:
    """Write the file's tokenizer, with the pre-tokenizer that llama.cpp runs for `tokenizer.ggml.pre`.

    transformers rebuilds vocabulary, merges and chat template but leaves the pre-tokenizer at plain GPT-2 splitting.
    """
    from transformers import AutoTokenizer

    splitting = pre_tokenizer(pre_name(path))
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = splitting
    tokenizer.save_pretrained(folder)


def pre_name(path: Path) -> str:
    """llama.cpp's name of the pre-tokenizer, from the file's metadata."""
    from gguf import GGUFReader

    field = GGUFReader(path).fields.get("tokenizer.ggml.pre")
    return str(field.contents()) if field else "default"


def pre_tokenizer(name: str) -> Any:
    """The `tokenizers` object for a name in llama.cpp's table (src/llama-vocab.cpp). Raises StageError."""
    from tokenizers import pre_tokenizers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    known = {"gpt-2": words, "smollm": pre_tokenizers.Sequence([digits, words])}
    if name not in known:
        hint = "name the published tokenizer with model.tokenizer, or use the model's hub id"
        raise StageError(f"the GGUF file splits text as {name!r}, which is not known here ({', '.join(known)})", hint)
    return known[name]
