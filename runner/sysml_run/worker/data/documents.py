"""A member's bytes as JSON values: one document, a value a line, or the rows of a table; strict UTF-8, strict JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from .bounded import DAMAGE, GZIP, LINE_BYTES, MEMBER_BYTES, gunzip, starts_with, too_large
from .columnar import COLUMNAR, columnar

LINE_NAMES = (".jsonl", ".ndjson")
DEPTH = 200  # levels of nesting; a few times this would exhaust the stack of what writes the row again
NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
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
    stream = gunzip(raw, name, limit=None) if starts_with(raw, GZIP) else raw
    if any(starts_with(stream, magic) for magic in COLUMNAR):
        for number, row in enumerate(columnar(stream, name), start=1):
            yield Document(row, number)
    elif plain.endswith(".csv"):
        yield from table(stream, name)
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
    if deep(data):
        raise ValueError(f"nested deeper than {DEPTH} levels")
    return json.loads(data.decode("utf-8-sig"), parse_constant=refuse_constant)


def deep(data: bytes) -> bool:
    """Whether JSON is nested deeper than DEPTH; only what has that many brackets is looked at twice."""
    if data.count(b"[") + data.count(b"{") <= DEPTH:
        return False
    return bool(unreduced(data)) and bool(unreduced(STRING.sub(b"", data)))


def unreduced(data: bytes) -> bytes:
    """The brackets left once those that match have been taken out, the innermost first, DEPTH times."""
    left = data.translate(None, NOT_BRACKETS)
    for _ in range(DEPTH):
        before, left = left, left.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(before):
            break
    return left


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def table(stream: io.BufferedReader, name: str) -> Iterator[Document]:
    """Rows of a CSV file with a header line; every value is text."""
    csv.field_size_limit(LINE_BYTES)
    reader = csv.reader(text_lines(stream, name), strict=True)
    header = next(reader, [])
    if len(set(header)) < len(header):
        raise ValueError("two columns have the same name")
    for number, cells in enumerate((cells for cells in reader if cells), start=1):
        whole = len(cells) == len(header)
        error = None if whole else "another number of cells than the header"
        yield Document(dict(zip(header, cells, strict=True)) if whole else None, number, error)


def text_lines(stream: io.BufferedReader, name: str) -> Iterator[str]:
    """Lines with their ends, as `csv` wants them."""
    encoding = "utf-8-sig"
    while line := bounded_line(stream, name, LINE_BYTES):
        yield line.decode(encoding)
        encoding = "utf-8"


def unpack_hex(text: str, name: str) -> Any:
    """The JSON document inside hex text of gzip bytes; ValueError where it is neither, DataError for a bomb."""
    try:
        return parse(gunzip(io.BytesIO(bytes.fromhex(text)), name).read())
    except DAMAGE as error:
        raise ValueError(f"the gzip inside is damaged: {error}") from error
