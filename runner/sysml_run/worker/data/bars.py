"""How far preparing has come: bytes of the files in the first pass, rows in the second; nothing where no one looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from sysml_run.datafiles import Source

EVERY = 500  # rows between two looks at the clock


class ReadingBar:
    """Counts rows while its length and time left follow the bytes read of files of `size` bytes in all."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bar: Any = tqdm(desc="prepare: read", total=size, unit="B", unit_scale=True, disable=None)
        self.rows, self.before, self.started = 0, 0, time.monotonic()
        self.position: Callable[[], int] = lambda: 0

    def __enter__(self) -> ReadingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show()
        self.bar.close()

    @contextmanager
    def file(self, source: Source) -> Iterator[Callable[[IO[bytes]], Any]]:
        """Follow one file; gives what is to be called with it once it is open."""

        def opened(raw: IO[bytes]) -> None:
            self.position = raw.tell

        try:
            yield opened
        finally:
            self.before, self.position = self.before + source.size, lambda: 0

    def row(self) -> None:
        """Count a row."""
        self.rows += 1
        if self.rows % EVERY == 0 and not self.bar.disable:
            self.show()

    def show(self) -> None:
        rate = self.rows / max(time.monotonic() - self.started, 1e-6)
        self.bar.set_postfix_str(f"{self.rows:,} rows, {rate:,.0f} rows/s", refresh=False)
        self.bar.update(min(self.before + self.position(), self.size) - self.bar.n)


def rows_bar(total: int, done: int) -> Any:
    """A bar over the rows of the second pass, of which `done` were made before."""
    return tqdm(desc="prepare: tokenize", total=total, initial=done, unit=" rows", unit_scale=True, disable=None)
