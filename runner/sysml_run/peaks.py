"""The memory that training took at most beside what was predicted of it, as figures and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GB = 1e9
HOLDERS = {"process": "one process", "card": "one card"}


def compared(memory: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`predicted` and `measured` bytes and measured / predicted as `ratio`; None for what is not known.

    `memory` is the train record's, `values` are the recipe's. What a TPU's devices held cannot be asked for.
    """
    predicted = (memory.get("predicted") or {}).get("total")
    measured = memory.get("measured", {}).get(_holder(values))
    ratio = round(measured / predicted, 3) if predicted and measured else None
    return {"predicted": predicted, "measured": measured, "ratio": ratio}


def words(memory: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """`2.31 GB of one process, predicted 2.20 GB (1.05 times as much)`; rows shorter than predicted for are said."""
    found, holder = compared(memory, values), _holder(values)
    taken = "not told by torch_xla" if holder is None else f"{found['measured'] / GB:.2f} GB of {HOLDERS[holder]}"
    if found["predicted"] is None:
        return f"{taken}; not predicted, for the model's architecture is not known"
    expected = f"{taken}, predicted {found['predicted'] / GB:.2f} GB"
    times = f" ({found['ratio']:.2f} times as much)" if found["ratio"] else ""
    return expected + _rows(memory, values) + times


def _holder(values: Mapping[str, Any]) -> str | None:
    """What a prediction is of, among what is measured."""
    return {"cpu": "process", "gpu": "card"}.get(values["hardware"]["accelerator"])


def _rows(memory: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """A prediction is of rows that are as long as they may be."""
    most, longest = values["prompt"]["sequence_len"], memory.get("longest_row")
    if longest is None or longest >= most or values["prompt"]["padding"] == "max_length":
        return ""
    return f" for rows of {most:,} tokens, of which the longest had {longest:,}"
