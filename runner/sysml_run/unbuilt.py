"""What the recipe language has and this version does not build: one row each, deleted by the work that builds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .position import Pointer, pointer
from .recipe import HardwareCpu, Recipe

TEMPLATES = ("mistral", "llama3", "chatml", "alpaca", "none")
DATASET_TYPES = ("sysscan.finding", "prompt_completion", "messages", "rows")


@dataclass(frozen=True)
class Unbuilt:
    """`test` is asked of every value that `pointer` means, `*` being each item of a list."""

    pointer: str
    test: Callable[[Any, Recipe], bool]
    words: str
    instead: str | None = None


UNBUILT = (
    Unbuilt("hardware.accelerator", lambda it, _: it != "cpu", "training on a {it}", "add --hardware cpu"),
    Unbuilt("hardware.devices", lambda it, all: _cpu(all) and it > 1, "training in {it} processes", "write 1"),
    Unbuilt("hardware.zero_stage", lambda it, all: _cpu(all) and it is not None, "DeepSpeed ZeRO", "remove it"),
    Unbuilt("hardware.offload.optimizer", lambda it, all: _cpu(all) and it != "none", "DeepSpeed offload", "remove it"),
    Unbuilt(
        "hardware.offload.parameters", lambda it, all: _cpu(all) and it != "none", "DeepSpeed offload", "remove it"
    ),
    Unbuilt("quantization.load", lambda it, _: it is not None, "training on a base in {it}", "remove it"),
    Unbuilt("quantization.export.*.method", lambda *_: True, "export to {it}", "remove it; merged/ has full weights"),
    Unbuilt("distillation", lambda it, _: it is not None, "distillation", "remove the section"),
    Unbuilt("search", lambda it, _: it is not None, "search", "remove the section"),
    Unbuilt("tracking.*", lambda *_: True, "tracking with {it}", "remove it; metrics.jsonl has every figure"),
    Unbuilt("prompt.template", lambda it, _: it in TEMPLATES, "the template {it}", "write tokenizer or a Jinja text"),
    Unbuilt("prompt.packing", lambda it, _: it, "packing", "write false"),
    Unbuilt("prompt.padding", lambda it, _: it == "bucketed", "bucketed padding", "write dynamic or max_length"),
    Unbuilt("datasets.*.type", lambda it, _: it not in DATASET_TYPES, "the type {it}", "write type: rows and a map"),
    Unbuilt("datasets.*.path", lambda it, _: it.startswith("hub:"), "reading from the hub", "download the files"),
    Unbuilt("datasets.*.weight", lambda it, _: it != 1, "weighing datasets", "write 1, or use max_rows"),
)


def unbuilt(recipe: Recipe) -> Iterator[tuple[str, str, str | None]]:
    """Pointer, message and hint for everything the recipe asks of a later version."""
    for row in UNBUILT:
        for at, value in _select(recipe, pointer(row.pointer), ()):
            if row.test(value, recipe):
                yield ".".join(at), f"{row.words.format(it=value)} is not built in this version", row.instead


def _select(value: Any, rest: Pointer, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not rest:
        yield at, value
    elif rest[0] == "*":
        for index, item in enumerate(value):
            yield from _select(item, rest[1:], (*at, str(index)))
    elif hasattr(value, str(rest[0])):
        yield from _select(getattr(value, str(rest[0])), rest[1:], (*at, str(rest[0])))


def _cpu(recipe: Recipe) -> bool:
    return isinstance(recipe.hardware, HardwareCpu)
