"""A GGUF file of ours back to a folder that transformers loads, for machines without llama.cpp."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sysml_run.rundir import read_json, write_json
from sysml_run.worker.weights import INDEX

from . import layout
from .convert import Source
from .layout import Part

KEPT = ("config.json", "generation_config.json")


def dequantize(path: Path, source: Path, folder: Path) -> None:
    """Write into `folder` what `path`, made from `source`, holds: every number as it stands in the file, in fp32."""
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors.torch import save_file

    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    config = read_json(source / "config.json")
    where = {part.name: part for part in layout.parts(Source(source).where, config)}
    index: dict[str, str] = {}
    for number, tensor in enumerate(GGUFReader(path).tensors):
        if tensor.name in where:  # not what follows from the header
            found = dict(unstacked(dequantize(tensor.data, tensor.tensor_type), where[tensor.name]))
            file = f"model-{number:05}.safetensors"
            save_file({name: torch.from_numpy(values.copy()) for name, values in found.items()}, folder / file)
            index |= dict.fromkeys(found, file)
    write_json(folder / INDEX, {"metadata": {}, "weight_map": index})


def unstacked(values: Any, part: Part) -> Iterator[tuple[str, Any]]:
    """Each weight by its name, heads turned back."""
    if "_exps" in part.name:
        yield from zip(part.sources, values, strict=True)
    else:
        yield part.sources[0], returned(values, part.heads) if part.heads else values


def returned(values: Any, heads: int) -> Any:
    """Rows of each head from neighbouring pairs to two halves."""
    rest = values.shape[1:]
    return values.reshape(heads, values.shape[0] // heads // 2, 2, *rest).swapaxes(1, 2).reshape(values.shape)
