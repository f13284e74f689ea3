"""One file of data as a stream, and the names, kinds and numbers that an archive is refused for."""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

from sysml_run.errors import DataError

MEMBERS = 100_000
HINT = "nothing was read from it; make the archive again with plain relative names"


@dataclass(frozen=True)
class Member:
    """One file's bytes; `name` is None where the file is not an archive. Read it before asking for the next."""

    file: str
    name: str | None
    stream: io.BufferedReader

    @property
    def label(self) -> str:
        """`file` or `file:member`, safe to print."""
        return printable(f"{self.file}:{self.name}" if self.name else self.file)


def printable(name: str) -> str:
    """A name from outside with control characters and lone surrogates spelled out."""
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode("ascii")


def check(file: str, name: str, number: int) -> None:
    """DataError for a name that leaves the archive or hides itself, and for more members than anyone means."""
    if number >= MEMBERS:
        raise too_many(file)
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or re.match(r"[A-Za-z]:", name):
        raise unsafe(file, name, "an absolute name")
    if ".." in path.parts:
        raise unsafe(file, name, "a name that leaves the archive")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise unsafe(file, name, "a name with control characters")


def too_many(file: str) -> DataError:
    return DataError(f"{file} holds more than {MEMBERS:,} members: refused", "pack rows into fewer, larger files")


def unsafe(file: str, name: str, why: str) -> DataError:
    return DataError(f"{file}: member {printable(name)!r} is {why}: archive refused", HINT)


def damaged(file: str, last: str, error: Exception) -> DataError:
    why = printable(str(error) or type(error).__name__)
    return DataError(f"{file} is damaged after {last}: {why}", "copy or download the archive again")
