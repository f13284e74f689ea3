"""Rows of Parquet and Arrow files as JSON values, a record batch at a time."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

from .bounded import starts_with, too_large
from .store import arrow

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"
COLUMNAR = (PARQUET, ARROW_FILE, ARROW_STREAM)
BATCH = 256  # rows
UNSEEKABLE_BYTES = 256 * 2**20  # of a file that must be held whole, being inside an archive
BATCH_BYTES = 512 * 2**20

Convert = Callable[[Any], Any] | None  # None: the value is JSON already


def columnar(stream: io.BufferedReader, name: str) -> Iterator[dict[str, Any]]:
    """The rows of one file. ValueError where it is damaged, DataError where one piece of it is too large."""
    pa = arrow()
    try:
        for batch in batches(stream, name):
            converts = {field.name: convert(field.type) for field in batch.schema}
            if len(converts) < len(batch.schema):
                raise ValueError("two columns have the same name")
            changed = {key: change for key, change in converts.items() if change is not None}
            for start in range(0, batch.num_rows, BATCH):
                for row in batch.slice(start, BATCH).to_pylist():
                    yield row | {key: change(row[key]) for key, change in changed.items()}
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"not a whole Parquet or Arrow file: {why}") from error


def batches(stream: io.BufferedReader, name: str) -> Iterator[Any]:
    """Record batches; a stream is read as it comes, the other two from where their end says."""
    pa = arrow()
    if starts_with(stream, ARROW_STREAM):
        yield from (sized(batch, name) for batch in pa.ipc.open_stream(pa.PythonFile(stream, mode="r")))
    elif starts_with(stream, PARQUET):
        yield from parquet(source(stream, name), name)
    else:
        reader = pa.ipc.open_file(source(stream, name))
        yield from (sized(reader.get_batch(number), name) for number in range(reader.num_record_batches))


def parquet(file: Any, name: str) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    reader = ParquetFile(file, pre_buffer=False, buffer_size=2**20)
    for number in range(reader.metadata.num_row_groups):
        if reader.metadata.row_group(number).total_byte_size > BATCH_BYTES:
            raise too_large(f"{name}: row group {number}", BATCH_BYTES)
    yield from reader.iter_batches(batch_size=BATCH, use_threads=False)


def sized(batch: Any, name: str) -> Any:
    """The batch once its offsets are found to lie inside it, which reading it would take on trust."""
    batch.validate(full=True)
    if batch.nbytes > BATCH_BYTES:
        raise too_large(f"{name}: a record batch", BATCH_BYTES)
    return batch


def source(stream: io.BufferedReader, name: str) -> Any:
    """A file that can be read from its end: the file itself, or a member of an archive held in memory."""
    pa = arrow()
    if isinstance(stream.raw, io.FileIO):
        return pa.PythonFile(stream, mode="r")
    data = stream.read(UNSEEKABLE_BYTES + 1)
    if len(data) > UNSEEKABLE_BYTES:
        raise too_large(f"{name}, which is packed", UNSEEKABLE_BYTES)
    return pa.BufferReader(data)


def convert(kind: Any) -> Convert:
    """What makes a value of an Arrow type a JSON value: times become ISO text, bytes text, a NaN a null."""
    pa = arrow()
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return from_json if kind.extension_name == "arrow.json" else convert(kind.storage_type)
    if types.is_dictionary(kind):
        return convert(kind.value_type)
    if types.is_struct(kind):
        return struct({kind.field(i).name: convert(kind.field(i).type) for i in range(kind.num_fields)})
    if types.is_map(kind):
        return pairs(convert(kind.item_type))
    if types.is_nested(kind):
        return each(convert(kind.value_type)) if hasattr(kind, "value_type") else str
    if types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return None
    return scalar


def scalar(value: Any) -> Any:
    """A float, time, decimal or bytes as JSON has it; ValueError for an infinite number."""
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("an infinite number is not JSON")
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        return text(value)
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def text(value: bytes) -> str:
    """Bytes as the text they mostly are, in files whose writer did not say so; base64 where they are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def from_json(value: Any) -> Any:
    from .documents import parse

    return None if value is None else parse(value.encode())


def struct(fields: dict[str, Convert]) -> Convert:
    changed = {name: change for name, change in fields.items() if change is not None}
    if not changed:
        return None
    return lambda value: value and value | {name: change(value[name]) for name, change in changed.items()}


def each(change: Convert) -> Convert:
    return None if change is None else lambda value: None if value is None else [change(item) for item in value]


def pairs(change: Convert) -> Convert:
    """Arrow gives a map as a list of pairs."""
    inner = change or (lambda value: value)
    return lambda value: None if value is None else {str(key): inner(item) for key, item in value}
