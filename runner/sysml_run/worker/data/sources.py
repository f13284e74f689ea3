"""Which files a dataset's `path` means, and their digests."""

from __future__ import annotations

import glob
import hashlib
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Dataset


@dataclass(frozen=True)
class Source:
    """One data file; `name` is how reports and row ids call it, free of the machine's folders."""

    path: Path
    name: str
    size: int
    sha256: str

    def facts(self) -> dict[str, Any]:
        """Name, size in bytes and digest, for records and cache keys."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


def find(dataset: Dataset) -> list[Source]:
    """The files of a file, folder or glob, in the order of their names; DataError when there is none."""
    path = dataset.path
    if path.startswith("hub:"):
        raise DataError(f"datasets from the hub cannot be read: {path}", "download it and name the folder or file")
    files = matching(path)
    if not files:
        hint = "datasets.path is a file, folder, glob or archive, relative to the recipe"
        raise DataError(f"no data at {path}", hint)
    return [Source(file, name, file.stat().st_size, sha256(file)) for file, name in files]


def matching(path: str) -> list[tuple[Path, str]]:
    """Each file with its name relative to the folder that `path` names; hidden files in folders are left out."""
    root = Path(path)
    if root.is_file():
        return [(root, root.name)]
    if not root.is_dir():
        root = fixed(path)
    pattern = Path(path).relative_to(root).as_posix()
    found = sorted(file for file in root.glob("**/*" if pattern == "." else pattern) if file.is_file())
    named = [(file, file.relative_to(root).as_posix()) for file in found]
    return [(file, name) for file, name in named if not any(part.startswith(".") for part in name.split("/"))]


def fixed(pattern: str) -> Path:
    """The leading folders of a glob that hold no wildcard."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
