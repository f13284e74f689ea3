"""Rows between two passes, on disk: JSON lines found again by their offset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any


class Spool:
    """Append with `write`, then `read` by offsets in any order."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b")
        self.end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def write(self, value: Any) -> int:
        """The byte offset of the value."""
        offset = self.end
        self.end += self.file.write(json.dumps(value).encode() + b"\n")
        return offset

    def read(self, offsets: Iterable[int]) -> Iterator[Any]:
        for offset in offsets:
            if self.file.tell() != offset:
                self.file.seek(offset)
            yield json.loads(self.file.readline())
