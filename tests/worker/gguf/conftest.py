"""Tiny random models of each architecture with tokenizers of each kind, and llama.cpp to read what is made of them."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sysml_run.architecture import tiny as sizes
from sysml_run.worker import tiny

needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed: make test installs it"
)
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of tiny models."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, byte_level: Path) -> Make:
    """A folder with a random model: `more` goes into its config. Norms and biases are random too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    made: dict[str, Path] = {}

    def make(architecture: str, **more: Any) -> Path:
        name = f"{architecture} {more}"
        if name not in made:
            made[name] = tmp_path_factory.mktemp(architecture)
            save(made[name], architecture, more)
        return made[name]

    def save(folder: Path, architecture: str, more: Any) -> None:
        tokenizer = AutoTokenizer.from_pretrained(byte_level)
        ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        words = {"vocab_size": len(tokenizer), **ids}
        config = AutoConfig.for_model(architecture, **(sizes(architecture) | words | more))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return make


def convert(
    folder: Path, kind: str, template: str | None = None, ends: tuple[int, ...] = (), means: Any = None
) -> tuple[Path, Any]:
    """The file, in the folder itself, and what was said of it."""
    from transformers import AutoTokenizer

    from sysml_run.rundir import read_json
    from sysml_run.worker.gguf import convert as converting
    from sysml_run.worker.gguf import words

    tokenizer = AutoTokenizer.from_pretrained(folder)
    told = words.read(tokenizer, read_json(folder / "config.json")["vocab_size"], ends, template)
    path = folder / f"{kind}.gguf"
    return path, converting.convert(folder, path, kind, told, {"name": "test"}, means)


@contextmanager
def llama(path: Path, **more: Any) -> Iterator[Any]:
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False, **more)
    try:
        yield model
    finally:
        model.close()
