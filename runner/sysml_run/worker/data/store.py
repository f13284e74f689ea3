"""The prepared set on disk: a folder a split in the layout of `datasets`, written in batches, opened memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sysml_run.rundir import RunDir, read_json, write_json

SPLITS = ("train", "validation", "test")
ARROW = "data-00000-of-00001.arrow"
POINTER = "prepared.json"
REPORT = "report.json"
COLUMNS = {
    "input_ids": "list",
    "labels": "list",
    "length": "int32",
    "loss_tokens": "int32",
    "prompt_len": "int32",
    "id": "string",
    "prompt": "string",
    "completion": "string",
}


@dataclass(frozen=True)
class Prepared:
    """A prepared set in the cache; `rows` counts each split."""

    key: str
    path: Path
    rows: dict[str, int]

    def split(self, name: str) -> Any:
        """`train`, `validation` or `test` as a memory-mapped `datasets.Dataset` (labels are not shifted)."""
        import datasets

        return datasets.load_from_disk(str(self.path / name))


def load(rundir: RunDir) -> Prepared:
    """The set that the run's `data/prepared.json` points at."""
    value = read_json(rundir.data / POINTER)
    return Prepared(value["key"], Path(value["path"]), value["rows"])


def end_ids(rundir: RunDir, tokenizer: Any) -> list[int]:
    """Ids of the tokens that ended the trained answers, the tokenizer's own end token first."""
    ends = read_json(rundir.data / REPORT).get("end_tokens", {})
    found = [tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(token) for token in ends)]
    return list(dict.fromkeys(found))


def arrow() -> Any:
    """pyarrow, which has no types; a cache hit does without it."""
    import pyarrow  # type: ignore[import-untyped]

    return pyarrow


def schema() -> Any:
    pa = arrow()
    types = {"list": pa.list_(pa.int32()), "int32": pa.int32(), "string": pa.string()}
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


class Writer:
    """An Arrow stream of the columns; nothing but the batch at hand is in memory."""

    def __init__(self, path: Path) -> None:
        pa = arrow()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema, self.rows = schema(), 0
        self.stream = pa.ipc.new_stream(str(path), self.schema)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self.write_batch(arrow().record_batch([columns[name] for name in COLUMNS], schema=self.schema))

    def write_batch(self, batch: Any) -> None:
        self.rows += batch.num_rows
        if batch.num_rows:
            self.stream.write_batch(batch)


def distribute(rows: Path, sides: Sequence[str], folder: Path, key: str) -> dict[str, int]:
    """Write row i of the Arrow stream `rows` to the split `sides[i]` under `folder`; the rows of each split."""
    pa = arrow()
    writers = {name: Writer(folder / name / ARROW) for name in SPLITS}
    done = 0
    with pa.OSFile(str(rows)) as file, pa.ipc.open_stream(file) as stream:
        for batch in stream:
            here = sides[done : done + batch.num_rows]
            done += batch.num_rows
            for name, writer in writers.items():
                writer.write_batch(batch.filter(pa.array([side == name for side in here])))
    for name, writer in writers.items():
        writer.stream.close()
        describe(folder / name, f"{key[:16]}-{name}")
    return {name: writer.rows for name, writer in writers.items()}


def describe(folder: Path, fingerprint: str) -> None:
    """The two files that make a folder with an Arrow stream one that `datasets.load_from_disk` opens."""
    write_json(folder / "dataset_info.json", {})
    formats: dict[str, Any] = {
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
    }
    files = {"_data_files": [{"filename": ARROW}], "_fingerprint": fingerprint, "_split": None}
    write_json(folder / "state.json", files | formats)


def seal(folder: Path, key: str, rows: dict[str, int]) -> None:
    """Record the size of every file, so that `intact` can tell a whole folder."""
    sizes = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }
    write_json(folder / POINTER, {"key": key, "rows": rows, "sizes": sizes})


def intact(folder: Path) -> Prepared | None:
    """The prepared set in `folder`, if every file of it is there in its recorded size."""
    try:
        value = read_json(folder / POINTER)
        whole = all((folder / name).stat().st_size == size for name, size in value["sizes"].items())
    except (OSError, json.JSONDecodeError):
        return None
    return Prepared(value["key"], folder, value["rows"]) if whole else None
