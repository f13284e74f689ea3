"""Datasets of the hub: pinned to a commit, laid out by the `datasets` library, fetched into the hub's own cache.

The files themselves are read by our own readers, like any others: rows stay as they were written, whatever their types.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sysml_run import datafiles
from sysml_run.datafiles import HUB
from sysml_run.errors import DataError
from sysml_run.recipe import Dataset
from sysml_run.rundir import read_json, write_json

COMMIT = re.compile(r"[0-9a-f]{40}")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\b")
PAGE = "https://huggingface.co/datasets"
FILES = "hf://datasets/"  # what `datasets` puts before the names of files on the hub

Answer = TypeVar("Answer")


def fetch(dataset: Dataset) -> str:
    """Have the dataset's files on this machine, so that `datafiles.find` finds them; the commit they are of.

    A commit as revision, and everything when offline, needs no connection once it is here. DataError with what to do.
    """
    note = datafiles.hub_note(dataset)
    commit = pinned(dataset)
    if here(dataset) and read_json(note)["commit"] == commit:
        return commit
    folder = datafiles.hub_folder(dataset) / "snapshots" / commit
    names = layout(dataset, commit, folder)
    if not offline():
        download(dataset, commit, names)
    whole(dataset, folder, names)
    files = [{"file": name, "facts": facts(dataset, commit, name, folder / name)} for name in names]
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, {"commit": commit, "files": files})
    return commit


def here(dataset: Dataset) -> bool:
    try:
        return bool(datafiles.fetched(dataset))
    except DataError:
        return False


def offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def pinned(dataset: Dataset) -> str:
    """The commit of the dataset's revision, as the hub says today, or as it said last where we are offline."""
    if dataset.revision is not None and COMMIT.fullmatch(dataset.revision):
        return dataset.revision
    if not offline():
        return asked(dataset)
    if here(dataset):
        return str(read_json(datafiles.hub_note(dataset))["commit"])
    ref = datafiles.hub_folder(dataset) / "refs" / (dataset.revision or "main")
    if not ref.is_file():
        raise absent(dataset)
    return ref.read_text(encoding="utf-8").strip()


def asked(dataset: Dataset) -> str:
    from huggingface_hub import HfApi

    name = dataset.path.removeprefix(HUB)
    return answer(dataset, lambda: str(HfApi().dataset_info(name, revision=dataset.revision).sha))


def answer(dataset: Dataset, call: Callable[[], Answer]) -> Answer:
    """What the hub answers; DataError where it refuses or cannot be reached."""
    from huggingface_hub import errors

    name, revision = dataset.path.removeprefix(HUB), dataset.revision
    try:
        return call()
    except errors.GatedRepoError as error:
        hint = f"ask for access at {PAGE}/{name}, then: hf auth login (or set HF_TOKEN)"
        raise DataError(f"the dataset {name} is gated", hint) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"the dataset {name} has no revision {revision!r}", f"see {PAGE}/{name}/commits") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        hint = f"compare the name with {PAGE}/{name}; a private one needs: hf auth login (or HF_TOKEN)"
        raise DataError(f"there is no dataset {name} on the hub, or it is private", hint) from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        hint = "look at the network, or add --offline to use what was fetched before"
        raise DataError(f"the dataset {name} cannot be fetched: {type(error).__name__}", hint) from error


def layout(dataset: Dataset, commit: str, folder: Path) -> list[str]:
    """The files of the configuration and split, by their names in the repository."""
    if offline() and not folder.is_dir():
        raise absent(dataset)
    name = dataset.path.removeprefix(HUB)
    root = f"{folder.resolve()}/" if offline() else f"{FILES}{name}@{commit}/"
    splits = answer(dataset, lambda: configured(dataset, str(folder) if offline() else name, commit))
    if dataset.split not in splits:
        raise DataError(f"{dataset.path} has no split {dataset.split!r}", f"its splits: {', '.join(splits)}")
    return sorted(str(file).removeprefix(root) for file in splits[dataset.split])


def configured(dataset: Dataset, path: str, commit: str) -> dict[str, Iterable[Any]]:
    """The data files of each split, as `datasets` finds them by README and file names; DataError where it does not."""
    from datasets import load_dataset_builder
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError

    revision = None if offline() else commit
    try:
        found = load_dataset_builder(path, dataset.config, revision=revision).config.data_files
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        hint = "such a dataset is made by a program: download what it makes, and name the files"
        raise DataError(f"{dataset.path} holds no data files", hint) from error
    except ValueError as error:
        raise DataError(f"{dataset.path}: {' '.join(str(error).split())}", "write datasets.config") from error
    return {str(split): files for split, files in (found or {}).items()}


def download(dataset: Dataset, commit: str, names: Iterable[str]) -> None:
    """Fetch what is not in the cache yet; whole or not at all, file by file."""
    from huggingface_hub import hf_hub_download

    for name in names:
        repository = dataset.path.removeprefix(HUB)
        answer(dataset, partial(hf_hub_download, repository, name, repo_type="dataset", revision=commit))


def whole(dataset: Dataset, folder: Path, names: list[str]) -> None:
    """DataError where files of the split are absent: such as some of several shards of an interrupted download."""
    shards = {name: SHARD.search(name) for name in names}
    wanted = {
        f"{name[: found.start()]}-{number:05}-of-{found[2]}{name[found.end() :]}"
        for name, found in shards.items()
        if found is not None
        for number in range(min(int(found[2]), 10_000))
    }
    lost = sorted(name for name in wanted | set(names) if not (folder / name).is_file())
    if lost or not names:
        message = f"{dataset.path} is not whole on this machine: {len(lost)} file(s) missing, such as {lost[:1]}"
        raise DataError(message, "run it once without --offline")


def facts(dataset: Dataset, commit: str, name: str, path: Path) -> dict[str, Any]:
    """What `datafiles.Source` says of one file; its name tells the commit."""
    shown = f"{dataset.path.removeprefix(HUB)}@{commit[:12]}/{name}"
    return {"name": shown, "size": path.stat().st_size, "sha256": datafiles.sha256(path)}


def absent(dataset: Dataset) -> DataError:
    revision = f" at revision {dataset.revision}" if dataset.revision else ""
    message = f"{dataset.path}{revision} was not fetched before, and this run is offline"
    return DataError(message, "run it once without --offline, or name the folder of a copy")
