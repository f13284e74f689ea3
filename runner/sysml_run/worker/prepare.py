"""The prepare stage: finds the prepared rows in the cache or makes them, and points the run at them."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sysml_run import datafiles, datasummary, prepared
from sysml_run.modelref import locate
from sysml_run.recipe import Dataset, Recipe
from sysml_run.rundir import PARTIAL, RunDir, read_json, write_json
from sysml_run.templates import NAMES

from .models import tokenizer_dir

KEPT = 7 * 24 * 3600  # seconds that unfinished work waits for the run that goes on with it


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `data/prepared.json` and `data/report.json` in the run; the record says which rows of which files.

    A set that is in the cache is found without importing torch or transformers. Of several runs that prepare the same
    set, one does and the others wait. DataError where no honest training could follow.
    """
    started = time.monotonic()
    files = [datafiles.find(fetched(dataset)) for dataset in recipe.datasets]
    key = prepared.key(recipe, files, tokenizer_dir(recipe))
    folder = prepared.folder(key)
    with alone(folder):
        found = prepared.intact(folder)
        how = "hit" if found else "made"
        if found is None:
            found = make(recipe, files, key, folder)
        report = read_json(folder / prepared.REPORT)
        report["template"]["origin"] = origin(recipe)
        if recipe.prompt.packing:
            report |= packed(recipe, folder)
    tell(rundir, report, key, found if how == "hit" else None)
    pointer = {"key": key, "path": str(folder), "cache": how, "rows": found.rows}
    write_json(rundir.data / prepared.REPORT, report)
    write_json(rundir.data / prepared.POINTER, pointer)
    facts = [source.facts() for each in files for source in each]
    took = {"seconds": round(time.monotonic() - started, 3)}
    return pointer | took | {"template": report["template"], "files": facts}


def tell(rundir: RunDir, report: dict[str, Any], key: str, hit: prepared.Prepared | None) -> None:
    """Print the report of a new set; `data` prints every report itself."""
    if hit is not None:
        print(f"prepare: cache hit ({key[:12]}…), {hit.rows['train']} training rows", flush=True)
        if "packing" in report:
            print(datasummary.packing_line(report["packing"]), flush=True)
    elif not (rundir.data / prepared.VIEW).is_file():
        print("\n".join(datasummary.lines(report)), flush=True)


def origin(recipe: Recipe) -> str:
    """Where the prompt's template comes from; files of this machine by their names."""
    template, name = recipe.prompt.template, recipe.model.tokenizer or recipe.model.base_model
    if template in NAMES:
        return f"sysml-run's own {template}.jinja"
    known = Path(name).name if locate(name).kind in ("folder", "gguf") else name
    return f"that of {known}" if template == "tokenizer" else "written in the recipe's prompt.template"


def fetched(dataset: Dataset) -> Dataset:
    """The dataset, with its files on this machine where they come from the hub."""
    if dataset.path.startswith(datafiles.HUB):
        from .data import hub

        print(f"prepare: {dataset.path} at commit {hub.fetch(dataset)}", flush=True)
    return dataset


def make(recipe: Recipe, files: list[list[datafiles.Source]], key: str, folder: Path) -> prepared.Prepared:
    from .data.build import WORK, build

    size = sum(source.size for found in files for source in found)
    print(f"prepare: reading {sum(map(len, files))} data file(s), {size / 1e6:.1f} MB", flush=True)
    for left in folder.parent.glob(f"{PARTIAL}{key}-*"):
        remove(left)
    for left in folder.parent.glob(f"{WORK}*"):
        if left.stat().st_mtime < time.time() - KEPT:
            remove(left)
    build(recipe, files, key, folder)
    made = prepared.intact(folder)
    assert made is not None
    return made


def packed(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The report's part about the packed training rows, which are made where they are not there yet."""
    from .data import packing

    return {"packing": packing.ensure(folder, recipe.prompt.sequence_len)}


def remove(folder: Path) -> None:
    """What a killed run left; its lock is ours now."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alone(folder: Path, doing: str = "prepare: another run is preparing the same rows") -> Iterator[None]:
    """Hold the folder's lock: no two processes make or replace it at once; `doing` is said where one has to wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{doing}; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
