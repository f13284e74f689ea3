"""Which files a dataset's `path` means, and their digests."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .caches import cache_dir, hub_cache
from .errors import DataError
from .recipe import Dataset

HUB = "hub:"


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
    """The files of a file, folder or glob, in the order of their names; DataError when there is none.

    Of a hub dataset those that were fetched before: nothing is downloaded here.
    """
    path = dataset.path
    if path.startswith(HUB):
        return fetched(dataset)
    files = matching(path)
    if not files:
        hint = "datasets.path is a file, folder, glob or archive, relative to the recipe"
        raise DataError(f"no data at {path}", hint)
    return [Source(file, name, file.stat().st_size, sha256(file)) for file, name in files]


def fetched(dataset: Dataset) -> list[Source]:
    """The files that a run has fetched, from the commit it pinned; DataError where some are not on this machine."""
    try:
        note = json.loads(hub_note(dataset).read_text(encoding="utf-8"))
        folder = hub_folder(dataset) / "snapshots" / note["commit"]
        found = [Source(folder / each["file"], **each["facts"]) for each in note["files"]]
        whole = all(source.path.stat().st_size == source.size for source in found)
    except (OSError, json.JSONDecodeError):
        whole, found = False, []
    if not whole:
        message = f"{dataset.path} is not on this machine"
        raise DataError(message, "a run without --offline fetches it; or name the folder or file of a copy")
    return found


def hub_folder(dataset: Dataset) -> Path:
    """Where huggingface_hub keeps the dataset's `refs` and `snapshots`."""
    return hub_cache() / f"datasets--{dataset.path.removeprefix(HUB).replace('/', '--')}"


def hub_note(dataset: Dataset) -> Path:
    """Where it is noted which commit and files the dataset's revision, config and split came to at the last run."""
    asked = json.dumps([dataset.path, dataset.revision, dataset.config, dataset.split])
    return cache_dir() / "hub" / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


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
