"""What is held in memory of every row: columns of fixed width, 60 to 70 bytes a row, which go to disk as they are."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .masking import DIGEST_BYTES

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """One entry a row. Digests are (rows, 2) uint64; `values` is (rows, fields) codes, -1 for a row without one."""

    offset: NDArray[np.int64]
    exact: NDArray[np.uint64]
    masked: NDArray[np.uint64]
    group: NDArray[np.uint64]
    dataset: NDArray[np.int32]
    values: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, rows: NDArray[Any]) -> Columns:
        """The columns of these rows: their numbers, or a mask."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def save(self, folder: Path) -> None:
        for each in fields(self):
            np.save(folder / f"{each.name}.npy", getattr(self, each.name))


def load(folder: Path) -> Columns:
    """What `save` wrote."""
    return Columns(**{each.name: np.load(folder / f"{each.name}.npy") for each in fields(Columns)})


class Builder:
    """Grows columns row by row; `names` has the values of each field in the order of their codes."""

    def __init__(self, fields: Sequence[str]) -> None:
        self.codes: dict[str, dict[str, int]] = {field: {} for field in fields}
        self.offset, self.dataset, self.values = array("q"), array("i"), array("i")
        self.digests = {name: bytearray() for name in ("exact", "masked", "group")}
        self.gone: list[int] = []

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def kept(self) -> int:
        """Rows that were added and not left out again."""
        return len(self) - len(self.gone)

    @property
    def names(self) -> dict[str, list[str]]:
        return {field: list(codes) for field, codes in self.codes.items()}

    def add(self, offset: int, dataset: int, digests: Mapping[str, bytes], values: Sequence[str | None]) -> int:
        """The number of the new row."""
        self.offset.append(offset)
        self.dataset.append(dataset)
        for name, found in digests.items():
            self.digests[name] += found
        for codes, value in zip(self.codes.values(), values, strict=True):
            self.values.append(-1 if value is None else codes.setdefault(value, len(codes)))
        return len(self) - 1

    def leave_out(self, number: int) -> None:
        """Take a row back."""
        self.gone.append(number)

    def columns(self) -> Columns:
        """Every row that was not taken back, in order."""
        count = len(self)
        pairs = {
            name: np.frombuffer(bytes(found), np.uint64).reshape(count, DIGEST_BYTES // 8)
            for name, found in self.digests.items()
        }
        values = np.array(self.values, np.int32).reshape(count, len(self.codes))
        made = Columns(
            np.array(self.offset, np.int64), **pairs, dataset=np.array(self.dataset, np.int32), values=values
        )
        return made.take(np.delete(np.arange(count), self.gone)) if self.gone else made


def same(digests: NDArray[np.uint64]) -> Ints:
    """A number for each row; equal digests have equal numbers, in the order of the digests."""
    if not len(digests):
        return np.zeros(0, np.int64)
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    numbers = np.empty(len(digests), np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum((ordered[1:] != ordered[:-1]).any(1))])
    return numbers


def first(digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows do not repeat an earlier one."""
    found = np.zeros(len(digests), bool)
    found[np.unique(same(digests), return_index=True)[1]] = True
    return found
