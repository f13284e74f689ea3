"""A member's bytes as JSON values: one document, or a value a line; strict UTF-8 and strict JSON."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from .bounded import DAMAGE, GZIP, LINE_BYTES, MEMBER_BYTES, gunzip, starts_with, too_large

LINE_NAMES = (".jsonl", ".ndjson")
UNREADABLE = (ValueError, RecursionError, csv.Error, tarfile.TarError, zipfile.BadZipFile, *DAMAGE)


@dataclass(frozen=True)
class Document:
    """One JSON value; `line` is None where it is the whole member. A line that is not JSON has an `error` instead."""

    value: Any
    line: int | None = None
    error: str | None = None


def documents(raw: io.BufferedReader, name: str) -> Iterator[Document]:
    """The values in one member called `name`; raises one of UNREADABLE where its bytes are not what they should be."""
    plain = name.lower().removesuffix(".gz")
    stream = gunzip(raw, name) if starts_with(raw, GZIP) else raw
    if plain.endswith(".csv"):
        yield from table(stream)
    elif plain.endswith(LINE_NAMES):
        yield from lines(stream, name)
    else:
        yield from guess(stream, name)


def guess(stream: io.BufferedReader, name: str) -> Iterator[Document]:
    """One document, unless the first line is a whole value and more follows."""
    first = bounded_line(stream, name, MEMBER_BYTES)
    try:
        value = parse(first)
    except (ValueError, RecursionError):
        rest = stream.read(MEMBER_BYTES - len(first) + 1)
        if len(first) + len(rest) > MEMBER_BYTES:
            raise too_large(name, MEMBER_BYTES) from None
        yield Document(parse(first + rest))
        return
    second = next_line(stream, name)
    if second is None:
        yield Document(value)
    else:
        yield Document(value, 1)
        yield from lines(stream, name, start=2, pending=second)


def next_line(stream: io.BufferedReader, name: str) -> bytes | None:
    """The next line, or None where only white space is left."""
    while line := bounded_line(stream, name, LINE_BYTES):
        if line.strip():
            return line
    return None


def lines(stream: io.BufferedReader, name: str, start: int = 1, pending: bytes = b"") -> Iterator[Document]:
    """One value a line; blank lines are passed over."""
    number, line = start, pending or bounded_line(stream, name, LINE_BYTES)
    while line:
        if line.strip():
            yield parse_line(line, number)
        number, line = number + 1, bounded_line(stream, name, LINE_BYTES)


def parse_line(line: bytes, number: int) -> Document:
    try:
        return Document(parse(line.strip()), number)
    except (ValueError, RecursionError) as error:
        return Document(None, number, str(error) or type(error).__name__)


def bounded_line(stream: IO[bytes], name: str, limit: int) -> bytes:
    line = stream.readline(limit + 1)
    if len(line) > limit:
        raise too_large(f"{name}: a line", limit)
    return line


def parse(data: bytes) -> Any:
    """Strict JSON from UTF-8 (a byte order mark is allowed); ValueError or RecursionError otherwise."""
    return json.loads(data.decode("utf-8-sig"), parse_constant=refuse_constant)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def table(stream: io.BufferedReader) -> Iterator[Document]:
    """Rows of a CSV file with a header line; every value is text."""
    csv.field_size_limit(LINE_BYTES)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        for number, row in enumerate(csv.DictReader(text, strict=True), start=1):
            whole = None not in row and None not in row.values()
            yield Document(row, number, None if whole else "another number of cells than the header")
    finally:
        text.detach()


def unpack_hex(text: str, name: str) -> Any:
    """The JSON document inside hex text of gzip bytes; ValueError where it is neither, DataError for a bomb."""
    try:
        return parse(gunzip(io.BytesIO(bytes.fromhex(text)), name).read())
    except DAMAGE as error:
        raise ValueError(f"the gzip inside is damaged: {error}") from error
