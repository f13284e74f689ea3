"""A finished model as its users load it, through transformers or llama.cpp, asked for logits and answers."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import PARTIAL, read_json

from . import gguf_files, measure, models
from .gguf import read as gguf_read
from .gptq import aside, shown


class Reader(Protocol):
    """`name` is what computes; `load_seconds` what loading took."""

    name: str
    load_seconds: float

    def logits(self, ids: Sequence[int], last: int) -> Any:
        """(last, vocabulary) float32: what is predicted after each of the last tokens."""

    def go_on(self, ids: Sequence[int], new: int) -> None:
        """Make exactly `new` tokens, whatever they are."""

    def answers(self, prompts: Sequence[Sequence[int]], new: int) -> list[str]:
        """Greedy continuations up to an end of answers or `new` tokens."""

    def tokens(self, text: str) -> list[int] | None:
        """The ids that the file's own tokenizer gives; None where it has none of its own."""


@dataclass
class Plain:
    """A model in transformers."""

    name: str
    load_seconds: float
    model: Any
    tokenizer: Any
    ends: Sequence[int]

    def logits(self, ids: Sequence[int], last: int) -> Any:
        import torch

        with torch.inference_mode():
            batch = torch.tensor([ids], device=self.model.device)
            return self.model(batch, use_cache=False, logits_to_keep=last).logits[0].float().cpu()

    def go_on(self, ids: Sequence[int], new: int) -> None:
        import torch

        batch = torch.tensor([ids], device=self.model.device)
        with torch.inference_mode():
            self.model.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )

    def answers(self, prompts: Sequence[Sequence[int]], new: int) -> list[str]:
        return measure.answers(self.model, self.tokenizer, self.ends, prompts, new)

    def tokens(self, text: str) -> list[int] | None:
        return None


@dataclass
class Cpp:
    """A GGUF file in llama.cpp, on the processor."""

    name: str
    load_seconds: float
    model: Any
    tokenizer: Any
    ends: Sequence[int]

    def logits(self, ids: Sequence[int], last: int) -> Any:
        import torch

        self.model.reset()
        self.model.eval(list(ids))
        return torch.from_numpy(self.model.scores[len(ids) - last : len(ids)].copy())

    def go_on(self, ids: Sequence[int], new: int) -> None:
        for _ in self.stream(ids, new):
            pass

    def answers(self, prompts: Sequence[Sequence[int]], new: int) -> list[str]:
        return [self.answer(prompt, new) for prompt in prompts]

    def answer(self, prompt: Sequence[int], new: int) -> str:
        found = []
        for token in self.stream(prompt, new):
            if token in self.ends:
                break
            found.append(token)
        return str(self.tokenizer.decode(found, skip_special_tokens=True))

    def stream(self, ids: Sequence[int], new: int) -> Iterator[int]:
        """The likeliest token, `new` times or until the context is full."""
        self.model.reset()
        self.model.eval(list(ids))
        for made in range(min(new, self.model.n_ctx() - len(ids))):
            token = int(self.model.scores[len(ids) + made - 1].argmax())
            yield token
            self.model.eval([token])

    def tokens(self, text: str) -> list[int] | None:
        return [int(token) for token in self.model.tokenize(text.encode(), add_bos=False, special=True)]


@contextmanager
def plain(folder: Path, recipe: Recipe, tokenizer: Any, ends: Sequence[int], name: str = "") -> Iterator[Reader]:
    """The weights in a folder, in the recipe's dtype."""
    model, seconds = timed(lambda: models.load_model(folder, recipe, recipe.model.dtype, **models.over_cards(recipe)))
    yield Plain(name or library("transformers"), seconds, model.eval(), tokenizer, ends)


@contextmanager
def gguf(
    path: Path, source: Path, recipe: Recipe, tokenizer: Any, ends: Sequence[int], context: int
) -> Iterator[Reader]:
    """A GGUF file made from the folder `source`: in llama.cpp with room for `context` tokens, else in transformers.

    Without llama-cpp-python the numbers in the file are what is measured, and not llama.cpp's arithmetic.
    """
    if importlib.util.find_spec("llama_cpp") is not None:
        model, seconds = timed(lambda: llama(path, context))
        try:
            yield Cpp(library("llama-cpp-python"), seconds, model, tokenizer, ends)
        finally:
            model.close()
        return
    name = f"{library('transformers')}, from the file's dequantized numbers"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=PARTIAL) as folder:
        gguf_read.dequantize(path, source, Path(folder))
        with plain(Path(folder), recipe, tokenizer, ends, name) as reader:
            yield reader


def llama(path: Path, context: int) -> Any:
    """Raises StageError where llama.cpp refuses the file."""
    import torch
    from llama_cpp import Llama

    try:
        threads = torch.get_num_threads()
        return Llama(
            str(path), n_ctx=context, logits_all=True, n_threads=threads, n_threads_batch=threads, verbose=False
        )
    except ValueError as error:
        hint = "a newer llama-cpp-python may: pip install --upgrade llama-cpp-python; or uninstall it, and the file "
        raise StageError(
            f"{library('llama-cpp-python')} does not load {path.name}: {error}", hint + "is read without"
        ) from error


@contextmanager
def gptq(folder: Path, recipe: Recipe, tokenizer: Any, ends: Sequence[int]) -> Iterator[Reader]:
    """A GPTQ checkpoint as transformers loads it.

    transformers has the experts of a Mixtral layer in one tensor, in which those of a checkpoint are not found; it
    would fill it with random numbers. Defuser gives it the layers of before; what is missing is refused in any case.
    """
    import torch
    from transformers import AutoModelForCausalLM

    shown()
    if read_json(folder / "config.json")["model_type"] == "mixtral":
        import defuser

        defuser.replace_fused_blocks("mixtral")
    torch._dynamo.config.disable = True  # else GPTQModel compiles its kernel first, for minutes on a processor
    where = "auto" if recipe.hardware.accelerator == "gpu" else "cpu"

    def load() -> Any:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, recipe.model.dtype), device_map=where, output_loading_info=True
        )
        gguf_files.refuse_missing(info, folder)
        for module in model.modules():
            if hasattr(module, "enable_weight_cache"):  # torch's kernel unpacks its numbers for each token otherwise
                module.enable_weight_cache()
        return model

    with aside():
        model, seconds = timed(load)
    yield Plain(f"{library('transformers')} with {library('gptqmodel')}", seconds, model.eval(), tokenizer, ends)


def library(name: str) -> str:
    """Name and version."""
    from importlib import metadata

    return f"{name} {metadata.version(name)}"


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return make(), round(time.monotonic() - started, 3)
