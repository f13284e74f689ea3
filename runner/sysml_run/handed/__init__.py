"""A model as a Python package: where its files are, and the model itself for whoever has the libraries to load it.

Stands in `sysml_run` to be copied beside a model, and needs nothing but Python's own library to say where it is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .join import LIST, whole

HERE = Path(__file__).parent / "model"


def path() -> Path:
    """The folder that loads; a model that came in pieces is put together in the user's cache the first time."""
    if not (HERE / LIST).is_file():
        return HERE
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return whole(HERE, cache / "sysml-run" / "joined")


def gguf() -> list[Path]:
    """The GGUF files, for llama-cpp-python and what else reads them."""
    return sorted(path().rglob("*.gguf"))


def card() -> dict[str, Any]:
    """What manifest.json says: name, base model, data, versions, and a digest of every file."""
    found: dict[str, Any] = json.loads((path() / "manifest.json").read_text(encoding="utf-8"))
    return found


def load(name: str = "", /, **options: Any) -> tuple[Any, Any]:
    """Model and tokenizer through transformers; `options` go to the model's from_pretrained.

    Of several models `name` says which. Raises ValueError where it does not.
    """
    several = card().get("packages", [""])
    if name not in several:
        raise ValueError(f"name one of {', '.join(map(repr, several))}" if any(several) else "there is one model alone")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = path() / name
    return AutoModelForCausalLM.from_pretrained(folder, **options), AutoTokenizer.from_pretrained(folder)
