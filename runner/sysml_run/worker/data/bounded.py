"""Decompression that cannot run away: more bytes than a limit, or too many for what went in, is refused by name."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import IO, Any

from sysml_run.errors import DataError

MEMBER_BYTES = 2**30  # one JSON document is parsed in memory
LINE_BYTES = 64 * 2**20
RATIO = 250  # real batches reach 12:1, a deflate bomb 1,032:1
FREE_BYTES = 32 * 2**20  # below this the ratio is not looked at

DAMAGE = (EOFError, OSError, zlib.error)
GZIP = b"\x1f\x8b"


class Bounded(io.RawIOBase):
    """Reads `raw`, a decompressing stream, and counts: `taken()` tells how many compressed bytes went in."""

    def __init__(self, raw: IO[bytes], name: str, taken: Callable[[], int], limit: int | None = MEMBER_BYTES) -> None:
        self.raw, self.name, self.taken, self.limit = raw, name, taken, limit
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`; DataError when the stream has grown past its bounds."""
        chunk = self.raw.read(len(buffer))
        self.count += len(chunk)
        self.check()
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def check(self) -> None:
        if self.limit is not None and self.count > self.limit:
            raise too_large(self.name, self.limit)
        if self.count > FREE_BYTES:
            check_ratio(self.count, self.taken(), self.name)


def check_ratio(count: int, taken: int, name: str) -> None:
    """DataError where far more bytes came out than went in."""
    if count > FREE_BYTES and count > RATIO * max(taken, 1):
        message = f"{name} unpacks to more than {RATIO} times its size"
        raise DataError(f"{message}: refused as a decompression bomb", "unpack it yourself if you trust it")


def too_large(name: str, limit: int) -> DataError:
    """The refusal of a document that would not fit in memory."""
    hint = "split it into several files, or write one row a line (.jsonl)"
    return DataError(f"{name} is larger than {limit // 2**20} MiB in one piece: refused", hint)


def gunzip(raw: IO[bytes], name: str, limit: int | None = MEMBER_BYTES) -> io.BufferedReader:
    """The decompressed bytes of a gzip stream, bounded; `raw` must know its position."""
    import gzip

    return io.BufferedReader(Bounded(gzip.GzipFile(fileobj=raw), name, raw.tell, limit))  # type: ignore[arg-type]


def starts_with(stream: io.BufferedReader, magic: bytes) -> bool:
    """Whether the next bytes are `magic`, without consuming them."""
    return stream.peek(len(magic))[: len(magic)] == magic
