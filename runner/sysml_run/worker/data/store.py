"""The prepared set on disk: a folder a split in the layout of `datasets`, written in batches, opened memory-mapped."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sysml_run.prepared import POINTER, REPORT, Prepared
from sysml_run.rundir import RunDir, read_json, write_json

SPLITS = ("train", "validation", "test")
ARROW = "data-00000-of-00001.arrow"
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
PACKED_COLUMNS = {
    "input_ids": "list",
    "labels": "list",
    "seq_lengths": "list",  # tokens of each row, in order
    "length": "int32",
    "loss_tokens": "int32",
}


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


def schema(columns: Mapping[str, str]) -> Any:
    pa = arrow()
    types = {"list": pa.list_(pa.int32()), "int32": pa.int32(), "string": pa.string()}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


class Writer:
    """An Arrow stream of the columns; nothing but the batch at hand is in memory."""

    def __init__(self, path: Path, columns: Mapping[str, str] = COLUMNS) -> None:
        pa = arrow()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema, self.rows = schema(columns), 0
        self.stream = pa.ipc.new_stream(str(path), self.schema)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def write(self, columns: Mapping[str, Any]) -> None:
        """Columns of Python values, or Arrow arrays of the schema's types."""
        pa = arrow()
        made = [self.column(columns[field.name], field.type) for field in self.schema]
        self.write_batch(pa.record_batch(made, schema=self.schema))

    def column(self, values: Any, kind: Any) -> Any:
        pa = arrow()
        if isinstance(values, pa.Array):
            return values
        return lists(values) if pa.types.is_list(kind) else pa.array(values, kind)

    def write_batch(self, batch: Any) -> None:
        self.rows += batch.num_rows
        if batch.num_rows:
            self.stream.write_batch(batch)


def lists(rows: Sequence[Any]) -> Any:
    """Rows of numbers (lists, or int32 arrays) as one Arrow array; a third of the time of pyarrow's own way."""
    import numpy as np

    return ragged(np.frombuffer(b"".join([packed(row) for row in rows]), np.int32), [len(row) for row in rows])


def packed(row: Any) -> bytes:
    """A list or an array of numbers as int32; `struct` takes a third of the time of numpy and `array` for a list."""
    return struct.pack(f"{len(row)}i", *row) if isinstance(row, list) else bytes(row.tobytes())


def ragged(values: Any, lengths: Sequence[int]) -> Any:
    """An int32 array cut to rows of these lengths, as an Arrow array of lists."""
    import numpy as np

    pa = arrow()
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths], dtype=np.int32)), pa.array(values))


def distribute(chunks: Sequence[Path], sides: Any, times: Any, folder: Path, key: str) -> dict[str, int]:
    """Write row i of the Arrow streams `chunks` `times[i]` times to the split number `sides[i]`; each split's rows."""
    import numpy as np

    pa = arrow()
    writers = {name: Writer(folder / name / ARROW) for name in SPLITS}
    done = 0
    for path in chunks:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                part = slice(done, done + batch.num_rows)
                done += batch.num_rows
                for code, writer in enumerate(writers.values()):
                    rows = np.flatnonzero(sides[part] == code)
                    writer.write_batch(batch.take(pa.array(np.repeat(rows, times[part][rows]))))
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
    """Record the size of every file, so that `prepared.intact` can tell a whole folder."""
    sizes = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }
    write_json(folder / POINTER, {"key": key, "rows": rows, "sizes": sizes})
