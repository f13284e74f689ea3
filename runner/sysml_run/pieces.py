"""Large files in pieces, for places that take no larger ones; `handed/join.py`, which goes along, makes them whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .handed import join
from .manifest import NAME, SUMS, sha256
from .rundir import write_json, write_text

RENAMED = {name: f"whole-{name}" for name in (NAME, SUMS, "README.md")}
PAGE = "Large files are in pieces here. `python join.py DIR` makes them whole in a new folder in DIR.\n"
READ = 1 << 20  # bytes


def cut(folder: Path, most: int) -> list[str]:
    """Cut every file with more than `most` bytes; gives the names of those that were cut.

    Lists and page of the whole package are kept under other names, for `folder` gets its own.
    """
    own = [folder / name for name in RENAMED]
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path not in own)
    large = [path for path in found if path.stat().st_size > most]
    if not large:
        return []
    files: dict[str, dict[str, Any]] = {}
    for path in large:
        digest, names = sha256(path), _cut(path, most)
        name = path.relative_to(folder).as_posix()
        files[name] = {"sha256": digest, "pieces": [f"{name.removesuffix(path.name)}{piece}" for piece in names]}
        path.unlink()
    renamed = {name: other for name, other in RENAMED.items() if (folder / name).is_file()}
    for name, other in renamed.items():
        (folder / name).replace(folder / other)
    page = folder / renamed.get("README.md", "README.md")
    write_text(folder / "README.md", atop(page.read_text(encoding="utf-8") if page.is_file() else "", PAGE))
    write_json(folder / join.LIST, {"files": files, "renamed": renamed})
    shutil.copyfile(join.__file__, folder / "join.py")
    return list(files)


def atop(page: str, text: str) -> str:
    """A page with a paragraph above it, behind what stands between `---` and is for machines."""
    front, rest = page.split("---\n", 2)[1:] if page.startswith("---\n") else ("", page)
    return f"---\n{front}---\n\n{text}{rest}" if front else f"{text}\n{rest}"


def _cut(path: Path, most: int) -> list[str]:
    count = -(-path.stat().st_size // most)
    names = [f"{path.name}.piece-{number:04}-of-{count:04}" for number in range(1, count + 1)]
    with path.open("rb") as file:
        for name in names:
            with path.with_name(name).open("wb") as piece:
                left = most
                while left and (data := file.read(min(READ, left))):
                    piece.write(data)
                    left -= len(data)
    return names
