"""Rows between two passes, on disk: one line of JSON each, found again by its offset."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any


class Spool:
    """Appends lines to a new file; `close` leaves them on the disk itself."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb", buffering=2**20)
        self.end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if not self.file.closed:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def write(self, line: bytes) -> int:
        """The byte offset of the line, which is JSON without a line break."""
        offset = self.end
        self.end += self.file.write(line + b"\n")
        return offset


def read(path: Path, offsets: Iterable[int]) -> Iterator[Any]:
    """The values at these offsets, in any order."""
    with path.open("rb", buffering=2**20) as file:
        at = 0
        for offset in offsets:
            if at != offset:
                file.seek(offset)
            line = file.readline()
            at = offset + len(line)
            yield json.loads(line)
