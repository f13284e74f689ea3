"""Training rows laid into sequences of at most `sequence_len` tokens, as a split `packed` beside the others.

Best fit, longest rows first, within WINDOW rows at a time, so that memory does not grow with the set. A row is never
cut. Its first label is ignored: nothing of its own stands before that token.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysml_run import prepared
from sysml_run.rundir import PARTIAL, read_json, whole_folder, write_json

from . import store
from .labels import IGNORED

PACKED, FACTS = "packed", "packing.json"
WINDOW = 16_384
BATCH = 64  # sequences written at a time


def ensure(folder: Path, length: int) -> dict[str, Any]:
    """Pack the set in `folder` unless it is packed; counts of rows and sequences, and the share of tokens in them.

    Whoever calls holds the set's lock. A set's key has `sequence_len` in it, so there is one packing of each.
    """
    if prepared.intact(folder / PACKED) is None:
        for left in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left)
        with whole_folder(folder / PACKED) as staging:
            facts = pack(folder, staging, length)
            write_json(staging / FACTS, facts)
            store.describe(staging, f"{folder.name[:16]}-{PACKED}")
            store.seal(staging, folder.name, {PACKED: facts["sequences"]})
    found: dict[str, Any] = read_json(folder / PACKED / FACTS)
    return found


def pack(folder: Path, staging: Path, length: int) -> dict[str, Any]:
    """Write the sequences in the order of their windows."""
    rows = tokens = 0
    with store.Writer(staging / store.ARROW, store.PACKED_COLUMNS) as writer:
        for window in windows(folder / "train" / store.ARROW):
            sizes = [len(ids) for ids, _ in window]
            rows, tokens = rows + len(window), tokens + sum(sizes)
            bins = best_fit(sizes, length)
            for at in range(0, len(bins), BATCH):
                writer.write(columns(window, bins[at : at + BATCH]))
    efficiency = round(tokens / (writer.rows * length), 4) if writer.rows else 0.0
    return {"rows": rows, "sequences": writer.rows, "length": length, "tokens": tokens, "efficiency": efficiency}


Ids = NDArray[np.int32]


def windows(path: Path) -> Iterator[list[tuple[Ids, Ids]]]:
    """Token ids and labels of the rows of an Arrow stream, WINDOW rows at a time."""
    pa, window = store.arrow(), list[tuple[Ids, Ids]]()
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            window += zip(parts(batch.column("input_ids")), parts(batch.column("labels")), strict=True)
            while len(window) >= WINDOW:
                yield window[:WINDOW]
                window = window[WINDOW:]
    if window:
        yield window


def parts(column: Any) -> list[Ids]:
    """The lists of an Arrow array as numpy arrays of their own."""
    ends, values = column.offsets.to_numpy(), column.values.to_numpy()
    return [values[start:stop].copy() for start, stop in pairwise(ends)]


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Numbers of the rows in each sequence: every row goes where it leaves the least room, the longest rows first.

    Best-fit decreasing: at most 11/9 of the fewest possible sequences, and one more (Johnson, 1973).
    """
    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]  # sequences by the tokens that still fit
    some = 0  # bit n is set where with_room[n] is not empty
    for row in sorted(range(len(sizes)), key=lambda row: (-sizes[row], row)):
        size = sizes[row]
        fitting = some >> size
        room = size + (fitting & -fitting).bit_length() - 1 if fitting else length
        if fitting:
            chosen = with_room[room].pop()
            some &= ~(1 << room) if not with_room[room] else -1
        else:
            chosen = len(bins)
            bins.append([])
        bins[chosen].append(row)
        with_room[room - size].append(chosen)
        some |= 1 << (room - size)
    return bins


def columns(window: Sequence[tuple[Ids, Ids]], bins: Sequence[Sequence[int]]) -> dict[str, list[Any]]:
    ids = [np.concatenate([window[row][0] for row in rows]) for rows in bins]
    labels = [np.concatenate([unpredicted(window[row][1]) for row in rows]) for rows in bins]
    return {
        "input_ids": ids,
        "labels": labels,
        "seq_lengths": [[len(window[row][0]) for row in rows] for rows in bins],
        "length": [len(each) for each in ids],
        "loss_tokens": [int((each != IGNORED).sum()) for each in labels],
    }


def unpredicted(labels: Ids) -> Ids:
    """The labels without the first."""
    labels[0] = IGNORED
    return labels
