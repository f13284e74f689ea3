"""The prepare stage: finds the prepared rows in the cache or makes them, and points the run at them."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sysml_run.recipe import Recipe
from sysml_run.rundir import PARTIAL, RunDir, read_json, write_json

from .data import cachekey, sources, store, summary
from .models import cache_dir


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `data/prepared.json` and `data/report.json` in the run; the record says which rows of which files.

    A set that is in the cache is found without importing torch or transformers. Of several runs that prepare the same
    set, one does and the others wait. DataError where no honest training could follow.
    """
    started = time.monotonic()
    files = [sources.find(dataset) for dataset in recipe.datasets]
    key = cachekey.compute(recipe, files)
    folder = cache_dir() / "prepared" / key
    with alone(folder):
        prepared = store.intact(folder)
        how = "hit" if prepared else "made"
        if prepared is None:
            prepared = make(recipe, files, key, folder)
        report = read_json(folder / store.REPORT)
    if how == "hit":
        print(f"prepare: cache hit ({key[:12]}…), {prepared.rows['train']} training rows")
    pointer = {"key": key, "path": str(folder), "cache": how, "rows": prepared.rows}
    write_json(rundir.data / store.REPORT, report)
    write_json(rundir.data / store.POINTER, pointer)
    facts = [source.facts() for found in files for source in found]
    return pointer | {"seconds": round(time.monotonic() - started, 3), "files": facts}


def make(recipe: Recipe, files: list[list[sources.Source]], key: str, folder: Path) -> store.Prepared:
    from .data.build import build

    size = sum(source.size for found in files for source in found)
    print(f"prepare: reading {sum(map(len, files))} data file(s), {size / 1e6:.1f} MB", flush=True)
    for left in folder.parent.glob(f"{PARTIAL}{key}-*"):
        remove(left)
    report = build(recipe, files, key, folder)
    print("\n".join(summary.lines(report)), flush=True)
    prepared = store.intact(folder)
    assert prepared is not None
    return prepared


def remove(folder: Path) -> None:
    """What a killed run left; its lock is ours now."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the set's lock: no two processes make or replace it at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("prepare: another run is preparing the same rows; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
