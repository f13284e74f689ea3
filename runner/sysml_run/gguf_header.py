"""The header of a .gguf file: its metadata and the names of its tensors, in some 30 ms and without numpy.

Versions 2 and 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); no weight is read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import UsageError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
LONGEST = 4_000_000  # bytes of one string, items of one array, keys and tensors; real files have a tenth
DEEPEST = 4  # arrays in arrays
MOST_DIMENSIONS = 4  # GGML_MAX_DIMS


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata by key, an array by its number of items in `lengths`; `tensors` are names as llama.cpp has them."""

    metadata: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: frozenset[str]


def read(path: Path) -> Header:
    """Raises UsageError for a file that is no GGUF file, is cut short or is not of a version known here."""
    try:
        with path.open("rb") as file:
            return _header(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as GGUF: {error}", "download it again") from error


def _header(file: BinaryIO) -> Header:
    if _take(file, 4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = _number(file, "<I")
    if version not in VERSIONS:
        raise ValueError(f"it is of version {version}, and {' and '.join(map(str, VERSIONS))} are known")
    tensors, keys = _size(file), _size(file)
    metadata: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for _ in range(keys):
        key, kind = _string(file), _number(file, "<I")
        if kind == ARRAY:
            lengths[key] = _skip_array(file, DEEPEST)
        else:
            metadata[key] = _value(file, kind)
    return Header(metadata, lengths, frozenset(_tensor(file) for _ in range(tensors)))


def _value(file: BinaryIO, kind: int) -> Any:
    return _string(file) if kind == STRING else _number(file, _format(kind))


def _format(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"it has a value of the unknown type {kind}")
    return SCALARS[kind]


def _skip_array(file: BinaryIO, depth: int) -> int:
    """Pass over an array and return its number of items."""
    kind, count = _number(file, "<I"), _size(file)
    if kind == STRING:
        for _ in range(count):
            _take(file, _size(file))
    elif kind == ARRAY:
        if not depth:
            raise ValueError("it has arrays in arrays without end")
        for _ in range(count):
            _skip_array(file, depth - 1)
    else:
        _take(file, count * struct.calcsize(_format(kind)))
    return count


def _tensor(file: BinaryIO) -> str:
    """The name; passes over shape, type and offset."""
    name, dimensions = _string(file), _number(file, "<I")
    if dimensions > MOST_DIMENSIONS:
        raise ValueError(f"the tensor {name!r} has {dimensions} dimensions")
    _take(file, 8 * dimensions + 4 + 8)
    return name


def _string(file: BinaryIO) -> str:
    return _take(file, _size(file)).decode("utf-8", errors="replace")


def _size(file: BinaryIO) -> int:
    count = int.from_bytes(_take(file, 8), "little")
    if count > LONGEST:
        raise ValueError(f"it claims {count} items where {LONGEST} are the most")
    return count


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, _take(file, struct.calcsize(form)))[0]


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("it is cut short")
    return data
