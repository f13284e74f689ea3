"""The prepared set of a recipe: its key, over everything that shapes its rows, and its counts if it is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import caches, datafiles, modelfiles
from .datafiles import Source
from .errors import SysmlError
from .modelref import locate
from .recipe import Dataset, Recipe
from .resources import PACKAGE
from .rundir import read_json

LIBRARIES = ("transformers", "tokenizers", "jinja2")  # that turn rows into token ids
POINTER = "prepared.json"
REPORT = "report.json"
VIEW = "view.json"  # in a run that `data` asks for: what is to be shown
MOST_READ = 1_000_000_000  # bytes whose digests are worth a second of waiting for a count


@dataclass(frozen=True)
class Prepared:
    """A prepared set in the cache; `rows` counts each split."""

    key: str
    path: Path
    rows: dict[str, int]

    def split(self, name: str) -> Any:
        """`train`, `validation` or `test` as a memory-mapped `datasets.Dataset` (labels are not shifted)."""
        import datasets

        return datasets.load_from_disk(str(self.path / name))


@dataclass(frozen=True)
class Counted:
    """Rows of each split, and the data report."""

    rows: Mapping[str, int]
    report: Mapping[str, Any]


def rows(recipe: Recipe) -> Counted | None:
    """The counts of the recipe's prepared set; None where it was not prepared on this machine, or is too large."""
    files = sources(recipe) if _any() else None
    return None if files is None else counted(recipe, files)


def sources(recipe: Recipe) -> list[list[Source]] | None:
    """The files of each dataset with their digests; None where one is absent, or all have more than MOST_READ bytes."""
    try:
        paths = [path for dataset in recipe.datasets for path, _ in datafiles.matching(dataset.path)]
        if sum(path.stat().st_size for path in paths) > MOST_READ:
            return None
        return [datafiles.find(dataset) for dataset in recipe.datasets]
    except (SysmlError, OSError, ValueError):
        return None


def counted(recipe: Recipe, files: Sequence[Sequence[Source]]) -> Counted | None:
    """The counts of the set made of these files, if it is in the cache."""
    try:
        tokenizer = None if _large(recipe) or not _any() else modelfiles.tokenizer(recipe)
        found = None if tokenizer is None else intact(folder(key(recipe, files, tokenizer)))
        return None if found is None else Counted(found.rows, read_json(found.path / REPORT))
    except (SysmlError, OSError, ValueError):
        return None


def _any() -> bool:
    """Without a prepared set on this machine there is nothing to read files for."""
    return folder("").is_dir()


def _large(recipe: Recipe) -> bool:
    """A .gguf file is known by the digest of its whole content."""
    ref = locate(recipe.model.tokenizer or recipe.model.base_model)
    return ref.kind == "gguf" and ref.path.stat().st_size > MOST_READ


def digest(files: Sequence[Sequence[Source]]) -> str:
    """SHA-256 in hex over names, sizes and contents of the data files."""
    facts = [[source.facts() for source in found] for found in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def folder(key: str) -> Path:
    """Where the set of this key is or will be."""
    return caches.cache_dir() / "prepared" / key


def key(recipe: Recipe, files: Sequence[Sequence[Source]], tokenizer: Path) -> str:
    """SHA-256 in hex; packing and padding are left out, as they change batches and not rows."""
    prompt = {name: value for name, value in asdict(recipe.prompt).items() if name not in ("packing", "padding")}
    shaped = {
        "datasets": [_described(dataset, found) for dataset, found in zip(recipe.datasets, files, strict=True)],
        "split": asdict(recipe.split),
        "fold": _fold(recipe),
        "prompt": prompt,
        "tokenizer": modelfiles.digest(tokenizer),
        "seed": recipe.seed,
        "code": code_digest(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(shaped, sort_keys=True).encode()).hexdigest()


def _fold(recipe: Recipe) -> list[int] | None:
    """Of cross-validation: which of how many; before a fold is chosen the rows are looked at as in the first."""
    found = recipe.evaluation.cross_validation
    return None if found is None else [found.fold or 1, found.folds]


def _described(dataset: Dataset, files: Sequence[Source]) -> dict[str, Any]:
    """Templates as the recipe has them, those a type brings being part of the code; files by name and content."""
    shaped = {name: value for name, value in asdict(dataset).items() if name != "path"}
    return shaped | {"files": [source.facts() for source in files]}


def code_digest() -> str:
    """Of the source and the templates that make rows: what other code made is not found again."""
    found = [*(PACKAGE / "worker" / "data").rglob("*"), PACKAGE / "worker" / "models.py", PACKAGE / "redaction.py"]
    files = sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def version(name: str) -> str | None:
    """Of an installed library; None where it is not."""
    from importlib import metadata  # takes longer to import than a recipe to check

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def intact(folder: Path) -> Prepared | None:
    """The prepared set in `folder`, if every file of it is there in its recorded size."""
    try:
        value = read_json(folder / POINTER)
        whole = all((folder / name).stat().st_size == size for name, size in value["sizes"].items())
    except (OSError, json.JSONDecodeError):
        return None
    return Prepared(value["key"], folder, value["rows"]) if whole else None
