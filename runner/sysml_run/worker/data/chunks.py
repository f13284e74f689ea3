"""What preparing leaves on disk until the set is whole, so that a killed run goes on from its last finished chunk.

A work folder holds the spool and the columns of the first pass, which count once `intake.json` names them, and for each
chunk of the second pass an Arrow file, which counts once a JSON file beside it has its size and digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysml_run.recipe import Recipe
from sysml_run.rundir import read_json, sync, write_json

from . import columns as stored
from . import spool, workers
from .bars import rows_bar
from .columns import Columns
from .encode import Counts, Encode
from .intake import Found

ROWS = 2048  # in a chunk
SMALL = 4096  # rows that one process has done before others have begun
SPOOL, INTAKE = "rows.jsonl", "intake.json"


@dataclass(frozen=True)
class Chunk:
    """Rows for one file: their numbers and where they are spooled."""

    path: Path
    numbers: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def plan(self) -> list[int]:
        """First and last row and their count: a chunk of another plan is not this one."""
        return [int(self.numbers[0]), int(self.numbers[-1]), len(self.numbers)]


@dataclass
class Encoded:
    """The rows that were kept, in order: arrays as in Counts; `files` hold them."""

    files: list[Path] = field(default_factory=list)
    parts: list[Counts] = field(default_factory=list)

    def array(self, name: str) -> NDArray[np.int64]:
        """One of the lists of Counts over all rows."""
        return np.concatenate([np.array(getattr(part, name), np.int64) for part in self.parts])

    def total(self, name: str) -> Counter[str]:
        """One of the counters of Counts over all rows."""
        return sum((getattr(part, name) for part in self.parts), Counter[str]())

    def count(self, name: str) -> int:
        return sum(int(getattr(part, name)) for part in self.parts)

    def first(self, name: str) -> Any:
        """The first value there is."""
        return next((getattr(part, name) for part in self.parts if getattr(part, name) is not None), None)


def save(folder: Path, found: Found, columns: Columns) -> None:
    """Record the first pass, whose spool is closed."""
    columns.save(folder)
    for file in folder.glob("*.npy"):
        sync(file)
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    write_json(folder / INTAKE, {"found": vars(found), "sizes": sizes})


def load(folder: Path) -> tuple[Found, Columns] | None:
    """The first pass as recorded; None, and nothing left of it, where it is not whole."""
    try:
        value = read_json(folder / INTAKE)
        if all((folder / name).stat().st_size == size for name, size in value["sizes"].items()):
            found = Found(**value["found"])
            found.dropped, found.refs = Counter(found.dropped), Counter(found.refs)
            return found, stored.load(folder)
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def encode(recipe: Recipe, folder: Path, numbers: NDArray[np.int64], columns: Columns, processes: int) -> Encoded:
    """Encode these rows of the spool in chunks, those that are not finished yet."""
    (folder / "chunks").mkdir(exist_ok=True)
    plan = list(planned(folder, numbers, columns))
    left = [chunk for chunk in plan if finished(chunk) is None]
    rows, todo = len(numbers), sum(len(chunk.numbers) for chunk in left)
    if len(left) < len(plan):
        print(f"prepare: {rows - todo} of {rows} rows were tokenized before", flush=True)
    with rows_bar(rows, rows - todo) as bar:
        for done in work(recipe, folder, left, todo, processes):
            bar.update(done)
    found = Encoded([chunk.path for chunk in plan])
    for chunk in plan:
        found.parts.append(read(chunk))
    return found


def planned(folder: Path, numbers: NDArray[np.int64], columns: Columns) -> Iterator[Chunk]:
    for at in range(0, len(numbers), ROWS):
        part = numbers[at : at + ROWS]
        yield Chunk(folder / "chunks" / f"{at // ROWS:06}.arrow", part, columns.offset[part])


def work(recipe: Recipe, folder: Path, left: Sequence[Chunk], rows: int, processes: int) -> Iterator[int]:
    """Make the chunks, here or in processes of their own; yields the rows of each."""
    if processes == 1 or rows <= SMALL:
        if left:
            begin(recipe, folder)
        yield from map(make, left)
    else:
        count = min(processes, len(left))
        yield from workers.in_order(make, left, count, prepare=begin, given=(recipe, folder))


STATE: dict[str, Any] = {}  # of a process: what all of its chunks are made with


def begin(recipe: Recipe, folder: Path) -> None:
    """Load the tokenizer once."""
    from sysml_run.worker.models import load_tokenizer

    STATE.update(encode=Encode(load_tokenizer(recipe), recipe.prompt), spool=folder / SPOOL)


def make(chunk: Chunk) -> int:
    """Write one chunk: the rows first, then the record that vouches for them."""
    part = chunk.path.with_suffix(".part")
    values = spool.read(STATE["spool"], chunk.offsets.tolist())
    counts = STATE["encode"](values, chunk.numbers.tolist(), part)
    sync(part)
    size, digest = part.stat().st_size, fingerprint(part)
    part.replace(chunk.path)
    write_json(chunk.record, {"plan": chunk.plan, "size": size, "digest": digest, "counts": vars(counts)})
    return len(chunk.numbers)


def finished(chunk: Chunk) -> dict[str, Any] | None:
    """The chunk's record, if its file is what was recorded."""
    try:
        value: dict[str, Any] = read_json(chunk.record)
        same = value["plan"] == chunk.plan and chunk.path.stat().st_size == value["size"]
    except (OSError, json.JSONDecodeError):
        return None
    return value if same and fingerprint(chunk.path) == value["digest"] else None


def read(chunk: Chunk) -> Counts:
    counts = Counts(**read_json(chunk.record)["counts"])
    counts.dropped, counts.end_tokens = Counter(counts.dropped), Counter(counts.end_tokens)
    return counts


def fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
