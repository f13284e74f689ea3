"""Weight files on their way into a package: safetensors only, whole, and in pieces no larger than asked for."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run.copies import clone
from sysml_run.errors import StageError
from sysml_run.rundir import read_json, write_json

SAFE = ".safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
SETTINGS = "training_args.bin"  # no weights: transformers' Trainer leaves it beside them, and nothing here reads it
UNITS = {"MB": 10**6, "GB": 10**9}
HEADER_LIMIT = 100_000_000  # bytes; the safetensors library refuses longer headers too


@dataclass(frozen=True)
class Weights:
    """One safetensors file; `sizes` are the bytes of each tensor by name."""

    path: Path
    sizes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.sizes.values())


def limit(text: str) -> int:
    """`50MB` or `5GB` in bytes, decimal as transformers counts them."""
    return int(text[:-2]) * UNITS[text[-2:]]


def read(folder: Path) -> list[Weights]:
    """The weight files in `folder`. Raises StageError when there are none, one is pickled, cut short or missing."""
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED and path.name != SETTINGS)
    if pickled:
        hint = "save the model again with transformers, which writes safetensors; loading a pickle can run any code"
        raise StageError(f"{folder} holds pickled files, which are not packed: {', '.join(pickled)}", hint)
    found = [Weights(path, _sizes(path)) for path in sorted(folder.glob(f"*{SAFE}"))]
    if not found:
        raise StageError(f"{folder} holds no {SAFE} file", "run the stage before this one again")
    present = {weights.path.name for weights in found}
    listed = set(read_json(folder / INDEX)["weight_map"].values()) if (folder / INDEX).is_file() else set()
    if listed - present:
        raise StageError(f"{folder} lacks {', '.join(sorted(listed - present))}, which {INDEX} names")
    return found


def place(files: Sequence[Weights], folder: Path, most: int) -> bool:
    """Put the weights into `folder` and say whether they were split anew: only where a file has more than `most` bytes.

    A tensor larger than that has a file of its own.
    """
    if all(weights.total <= most or len(weights.sizes) == 1 for weights in files):
        for weights in files:
            clone(weights.path, folder / weights.path.name)
        index = files[0].path.with_name(INDEX)
        if index.is_file():
            clone(index, folder / INDEX)
        return False
    _split(files, folder, most)
    return True


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of each tensor, from the header (https://github.com/huggingface/safetensors#format)."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length)) if 2 <= length <= HEADER_LIMIT else {}
        spans = {name: tuple(entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"}
        sizes = {name: end - start for name, (start, end) in spans.items()}
        whole = 8 + length + max((end for _, end in spans.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sizes, whole = {}, -1
    if not sizes or whole != path.stat().st_size:
        raise StageError(f"{path} is not a whole safetensors file", "run the stage that writes it again")
    return sizes


def _split(files: Sequence[Weights], folder: Path, most: int) -> None:
    """Write new shards and their index; one shard at a time is in memory."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    shards = list(_shards(files, most))
    names = [f"model-{number:05}-of-{len(shards):05}{SAFE}" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        tensors: dict[str, Any] = {}
        for weights, tensor in shard:
            with safe_open(weights.path, framework="pt") as file:
                tensors[tensor] = file.get_tensor(tensor)
        try:
            save_file(tensors, folder / name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise refused(error, folder / name) from error
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for _, tensor in shard}
    total = sum(weights.total for weights in files)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})


def refused(error: Exception, path: Path) -> OSError:
    """What the operating system said to the safetensors library, which tells it only in its text."""
    said = re.search(r"os error (\d+)", str(error))
    number = int(said[1]) if said else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def _shards(files: Sequence[Weights], most: int) -> Iterator[list[tuple[Weights, str]]]:
    """Tensors in the order of their files, in groups of at most `most` bytes."""
    shard: list[tuple[Weights, str]] = []
    used = 0
    for weights in files:
        for tensor, size in weights.sizes.items():
            if shard and used + size > most:
                yield shard
                shard, used = [], 0
            shard.append((weights, tensor))
            used += size
    yield shard
