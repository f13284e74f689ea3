"""The resolved recipe for other people's eyes: every key as run, local paths reduced to names, as YAML and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sysml_run import schema
from sysml_run.yaml12 import plain

HEAD = "# Every key as it was run, defaults written out. Local paths are names only: put the data beside this file.\n"
ODD_BREAKS = frozenset("\r\x85\u2028\u2029")
Place = tuple[str, ...]


@cache
def path_keys() -> frozenset[Place]:
    """Where the recipe holds paths; an item of a list is `[]`."""
    marked = (place for place, node in schema.walk(schema.load()) if "x-path" in node)
    return frozenset([*marked, ("artifacts", "dir")])


def values(value: Any, place: Place = ()) -> Any:
    """The value with every absolute path replaced by its last part."""
    if isinstance(value, dict):
        return {name: values(below, (*place, name)) for name, below in value.items()}
    if isinstance(value, list):
        return [values(below, (*place, "[]")) for below in value]
    if isinstance(value, str) and place in path_keys() and value.startswith(("/", "~")):
        return Path(value).name
    return value


def sources(found: dict[str, str]) -> dict[str, str]:
    """Where each value came from, without the folders of this machine."""
    return {pointer: source(text) for pointer, text in found.items()}


def source(text: str) -> str:
    """`/home/me/recipes/x.yaml:16` -> `x.yaml:16`; of `--set key=value` the key, whose value stands beside it."""
    if text.startswith("--set "):
        return text.partition("=")[0]
    path, colon, line = text.rpartition(":")
    return f"{Path(path).name}:{line}" if colon and line.isdigit() else text


def written(value: Mapping[str, Any]) -> str:
    """The recipe as YAML 1.2 that can be run again.

    Of accumulation and effective batch size, of which a recipe may name one, the first stays: it is what ran.
    """
    training = dict(value["training"])
    if training.get("gradient_accumulation_steps") is not None:
        training["effective_batch_size"] = None
    body = yaml.dump({**value, "training": training}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return HEAD + body


def leaves(value: Any, pointer: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted pointer and value of every scalar, and of every empty list or object."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, below in items:
            yield from leaves(below, (*pointer, str(name)))
    else:
        yield ".".join(pointer), value


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 would read as something else, and writes several lines as a block."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        style = None if isinstance(plain(value), str) and not ODD_BREAKS & set(value) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", value, "|" if "\n" in value and not style else style)


_Dumper.add_representer(str, _Dumper.text)
