"""What the recipe language has and this version does not build: one row each, deleted by the work that builds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .position import Pointer, pointer
from .recipe import Recipe


@dataclass(frozen=True)
class Unbuilt:
    """`test` is asked of every value that `pointer` means, `*` being each item of a list."""

    pointer: str
    test: Callable[[Any, Recipe], bool]
    words: str
    instead: str | None = None


UNBUILT = (
    Unbuilt("search", lambda it, _: it is not None, "search", "remove the section"),
    Unbuilt("datasets.*.type", lambda it, _: it == "preference", "training on pairs", "write type: rows and a map"),
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
