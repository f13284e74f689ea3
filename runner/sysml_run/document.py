"""A recipe's bytes -> plain values that know where they stand."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import yaml12
from .errors import STDIN, Problem, RecipeError
from .position import Pointer, Position, dotted, pointer

__all__ = ["Document", "Pointer", "Position", "decode", "dotted", "load", "parse", "pointer"]

MAX_BYTES = 1_000_000
SUFFIXES = (".yaml", ".yml")  # of recipes' files
DASH = "-"  # names standard input


@dataclass(frozen=True)
class Document:
    """Plain values; `keys[p]` is where the key of p stands, `values[p]` where its value stands (items: values only).

    Paths count from `folder`, or from the folder of the file `source` where there is none.
    """

    source: str
    text: str
    value: Any
    keys: Mapping[Pointer, Position]
    values: Mapping[Pointer, Position]
    folder: Path | None = None

    def key(self, pointer: Pointer) -> Position:
        """Where to point for `pointer` itself: its key, else its value, else what holds it."""
        return self.keys.get(pointer) or self.place(pointer)

    def place(self, pointer: Pointer) -> Position:
        """Where to point for the value of `pointer`: its key when it starts on a later line, its holder when absent."""
        value = self.values.get(pointer)
        if value is None:
            return self.key(pointer[:-1])
        key = self.keys.get(pointer, value)
        return value if key.line == value.line else key


def load(path: Path) -> Document:
    """Read and parse a recipe. Raises RecipeError for everything that is wrong with the file or its YAML."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "is a folder, not a recipe" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise RecipeError([Problem(str(path), "", None, None, reason)]) from None
    return parse(decode(data, str(path)), str(path))


def stdin() -> Document:
    """The recipe on standard input, which can be read once; paths count from the current folder. Raises RecipeError."""
    return parse(decode(sys.stdin.buffer.read(MAX_BYTES + 1), STDIN), STDIN)


def decode(data: bytes, source: str) -> str:
    """UTF-8 bytes -> text. Raises RecipeError."""
    if len(data) > MAX_BYTES:
        raise RecipeError([Problem(source, "", None, None, f"larger than {MAX_BYTES} bytes; a recipe holds no data")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = error.object.decode("utf-8", "replace")
        start = len(error.object[: error.start].decode("utf-8"))
        message = f"not UTF-8 text: byte 0x{error.object[error.start]:02x}"
        raise RecipeError([yaml12.place(source, text, start).problem((), message, "save it as UTF-8")]) from None


def parse(text: str, source: str) -> Document:
    """Parse the text of a recipe; `source` names it in positions. Raises RecipeError."""
    text = text.removeprefix("\ufeff")
    value, keys, values = yaml12.read(text, source)
    return Document(source, text, value, keys, values)
