"""Whether what a recipe names is at hand: its models' files, its rows, and what else a run would be refused for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import architecture, caches, datafiles, modelfiles
from .doctor import Check
from .errors import Problem, UsageError
from .modelref import ModelRef, Named, models
from .recipe import Recipe

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))
KINDS = "'*.safetensors' '*.json' '*.jinja' '*.model' '*.txt' README.md"


def checks(recipe: Recipe, refused: Sequence[Problem]) -> list[Check]:
    """One check for each model and dataset, and one for each problem that a run would be `refused` for."""
    looked_at = {named.pointer for named in models(recipe)}
    found = [each for each in refused if each.pointer not in looked_at]
    problems = [Check("recipe", each.pointer, "missing", each.message, each.hint) for each in found]
    said = {each.pointer for each in refused}
    return [*map(_model, models(recipe)), *_rows(recipe, said), *problems]


def on_hub(recipe: Recipe) -> list[Named]:
    """The models that come from the hub; in a resolved recipe everything else is a path or says what it is."""
    elsewhere = ("/", "package:", "tiny:")
    return [named for named in models(recipe) if not named.name.startswith(elsewhere)]


def _model(named: Named) -> Check:
    try:
        ref = named.ref()
    except UsageError as error:
        return Check("recipe", named.pointer, "missing", error.message, error.hint)
    if ref.kind == "hub":
        return _hub_model(named)
    if ref.kind == "folder" and named.weights and not complete(ref.path):
        mend = "download or save them there as .safetensors"
        return Check("recipe", named.pointer, "missing", f"{ref.where} lacks weight files", mend)
    return Check("recipe", named.pointer, "ok", _found(ref))


def _found(ref: ModelRef) -> str:
    if ref.kind == "tiny":
        return f"a tiny random {ref.where}, made by the run"
    return f"{ref.where}, {_size([ref.path])}" if ref.kind == "gguf" else ref.where


def _hub_model(named: Named) -> Check:
    folder = caches.snapshot(named.name, named.revision)
    if folder is not None and (complete(folder) if named.weights else tokenizer(folder)):
        return Check("recipe", named.pointer, "ok", f"{named.name} is in the hub cache")
    some = "only partly in the hub cache" if folder is not None else "not in the hub cache"
    switch = caches.offline()
    if switch:
        return Check("recipe", named.pointer, "missing", f"{named.name} is {some}, {switch} is set", f"unset {switch}")
    if architecture.gated(named.name) and caches.token_source() is None:
        mend = f"ask for access at https://huggingface.co/{named.name}, then: hf auth login"
        return Check("recipe", named.pointer, "missing", f"{named.name} is {some}, gated, and no token is here", mend)
    revision = f" --revision {shlex.quote(named.revision)}" if named.revision else ""
    download = f"hf download {named.name}{revision} --include {KINDS}"
    return Check("recipe", named.pointer, "warning", f"{named.name} is {some}; the run will download it", download)


def complete(folder: Path) -> bool:
    """Whether every file of the weights is there; an index names those of a model in several files."""
    index = folder / "model.safetensors.index.json"
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        return any(file.is_file() for file in folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return all((folder / str(name)).is_file() for name in named)


def tokenizer(folder: Path) -> bool:
    """Whether some file of a tokenizer is there."""
    return any((folder / name).is_file() for name in modelfiles.TOKENIZER_FILES) or any(folder.glob("*.model"))


def _rows(recipe: Recipe, said: set[str]) -> Iterator[Check]:
    for number, dataset in enumerate(recipe.datasets):
        pointer = f"datasets.{number}.path"
        if pointer in said or dataset.path.startswith("hub:"):
            continue
        files = [path for path, _ in datafiles.matching(dataset.path)]
        if files:
            several = f"{len(files)} files, " if len(files) > 1 else ""
            yield Check("recipe", pointer, "ok", f"{dataset.path}, {several}{_size(files)}")
        else:
            mend = "put data files there, or write another path"
            yield Check("recipe", pointer, "missing", f"{dataset.path} holds no file", mend)


def _size(files: Sequence[Path]) -> str:
    size = sum(file.stat().st_size for file in files)
    unit, name = next(((unit, name) for unit, name in UNITS if size >= unit), UNITS[-1])
    return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
