"""Where a model's files lie on this machine, and the digest of a tokenizer's; makes and downloads nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from .caches import cache_dir, snapshot
from .datafiles import sha256
from .modelref import VOCABULARY, ModelRef, locate
from .recipe import Recipe
from .resources import samples

CODE_VERSION = 1  # part of every name in the cache; raise it when a conversion changes its result
CHATML = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
)


def made(name: str) -> Path:
    """The folder in the cache of a model or tokenizer that is converted or made here."""
    return cache_dir() / "models" / f"{name}-{CODE_VERSION}"


def tokenizer_name(ref: ModelRef) -> str:
    """What the cache calls the tokenizer of a .gguf file or of a tiny model."""
    return f"tiny-tokenizer-{corpus_digest()[:16]}" if ref.kind == "tiny" else f"{sha256(ref.path)[:16]}-tokenizer"


def tokenizer(recipe: Recipe) -> Path | None:
    """The tokenizer's folder, if it is at hand. Raises UsageError for a model that is named and absent."""
    ref = locate(recipe.model.tokenizer or recipe.model.base_model)
    if ref.kind == "hub":
        return snapshot(ref.where, recipe.model.revision if recipe.model.tokenizer is None else None)
    folder = ref.path if ref.kind == "folder" else made(tokenizer_name(ref))
    return folder if folder.is_dir() else None


def digest(folder: Path) -> str:
    """Digest of the tokenizer's files in `folder`: what shapes tokens, and nothing else."""
    files = [*(folder / name for name in TOKENIZER_FILES), *folder.glob("*.model")]
    found = {file.name: sha256(file) for file in files if file.is_file()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def corpus() -> Iterator[str]:
    """Lines of the shipped sample rows, which the tiny tokenizer's merges are learned from."""
    for file in sorted(samples().glob("*.jsonl")):
        yield from file.read_text(encoding="utf-8").splitlines()


def corpus_digest() -> str:
    """Of everything that shapes the tiny tokenizer."""
    return hashlib.sha256("\n".join([CHATML, str(VOCABULARY), *corpus()]).encode()).hexdigest()
