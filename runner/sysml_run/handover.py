"""Finished runs -> one folder to hand over: a package as it is, several beside each other, or a Python package."""

from __future__ import annotations

import json
import keyword
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import copies, handed, manifest, needs, pieces
from .errors import StageError, UsageError
from .measures import measures
from .rundir import RunDir, read_json, whole_folder, write_text
from .verification import refusal, verify

UNITS = {"MB": 10**6, "GB": 10**9}
SIZE = re.compile(r"([1-9][0-9]*)(MB|GB)")
# Modules that a package of the same name would take the place of.
KNOWN = {*sys.stdlib_module_names, *(name.replace("-", "_") for name in manifest.LIBRARIES), *needs.MODULES}
PROJECT = """\
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = {name}
version = {version}
description = {description}
readme = "README.md"
requires-python = ">=3.10"

[project.optional-dependencies]
transformers = ["torch", "transformers>={transformers}"]

[tool.hatch.build]
ignore-vcs = true

[tool.hatch.build.targets.wheel]
packages = [{module}]
"""


@dataclass(frozen=True)
class Part:
    """A finished run's package; `name` is its folder among several."""

    name: str
    folder: Path
    made: dict[str, Any]


def size(text: str) -> int:
    """`50MB` or `1GB` in bytes, decimal. Raises UsageError."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is not a size", "write it such as 50MB or 1GB")
    return int(found[1]) * UNITS[found[2]]


def parts(runs: Sequence[Path]) -> list[Part]:
    """The packages of these runs, every byte checked. Raises UsageError for an absent one, StageError for a damaged."""
    found: list[Part] = []
    places = [path.resolve() for path in runs]
    for path, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{path} is named twice", "name each run once")
        rundir = RunDir(path.absolute())
        if not rundir.recipe.is_file():
            raise UsageError(
                f"{path} is not a run directory", "name a folder such as runs/quickstart/20260101-120000-abcd"
            )
        if not rundir.done("package"):
            folds = read_json(rundir.recipe)["values"].get("evaluation", {}).get("cross_validation")
            mend = "start a new run without evaluation.cross_validation" if folds else None
            raise UsageError(f"{path} has no finished package", mend or f"sysml-run RECIPE --resume {path}")
        wrong = verify(rundir.package)
        if wrong:
            mend = f"remove {rundir.record('package')}, then: sysml-run RECIPE --resume {path}"
            raise StageError(f"{rundir.package} is not as it was packed: {wrong[0]}", mend)
        made = read_json(rundir.package / manifest.NAME)
        name = _named(str(made["name"]))
        taken = any(part.name == name for part in found)
        found.append(Part(f"{name}-{rundir.path.name}" if taken else name, rundir.package, made))
    return found


def write(found: Sequence[Part], out: Path, *, python: bool, most: int | None) -> dict[str, Any]:
    """Leave `out` whole or not at all, in place of a package of ours at most; gives its manifest.

    Files with more than `most` bytes are cut into pieces. Raises UsageError and StageError.
    """
    refused = refusal(out)
    if refused:
        raise UsageError(f"--out {out} is not overwritten: {refused}", "name another folder, or move that one away")
    inside = next((each for each in (out.resolve(), *out.resolve().parents) if _is_run(each)), None)
    if inside:
        raise UsageError(f"--out {out} is inside the run {inside}, which is left as it is", "name a folder elsewhere")
    with writable(out), whole_folder(out.absolute()) as folder:
        module = _module(found) if python else None
        place = folder / module / "model" if module else folder
        place.mkdir(parents=True, exist_ok=True)
        _fill(found, place)
        cut = pieces.cut(place, most) if most else []
        if module:
            _python(found, folder, module)
        if module or cut:
            manifest.write(
                folder, _facts(found) | ({"module": module} if module else {}) | ({"cut": cut} if cut else {})
            )
        return dict(read_json(folder / manifest.NAME))


def _is_run(folder: Path) -> bool:
    """Packages have the recipe too, but no records."""
    return (folder / "recipe.json").is_file() and (folder / "records").is_dir()


@contextmanager
def writable(out: Path) -> Iterator[None]:
    """A full or closed disk as a StageError."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{out} cannot be written: {error.strerror or error}", "make room, or name another --out"
        ) from error


def _fill(found: Sequence[Part], place: Path) -> None:
    """One package as it is; of several each in a folder of its own, with a page and lists over all."""
    if len(found) == 1:
        copies.clone_folder(found[0].folder, place)
        return
    for part in found:
        copies.clone_folder(part.folder, place / part.name)
    write_text(place / "README.md", "".join(_page(found)))
    manifest.write(place, _facts(found))


def _facts(found: Sequence[Part]) -> dict[str, Any]:
    """What the lists of the handed-over folder say beside the checksums."""
    if len(found) == 1:
        return {key: value for key, value in found[0].made.items() if key not in ("format", "kind", "files")}
    names = ", ".join(part.name for part in found)
    return {"name": names, "created": _newest(found), "packages": [part.name for part in found]}


def _newest(found: Sequence[Part]) -> str | None:
    return max((str(part.made["created"]) for part in found if part.made.get("created")), default=None)


def _page(found: Sequence[Part]) -> Iterator[str]:
    yield "# Models\n\n| model | base model | licence of the base | measured |\n| --- | --- | --- | --- |\n"
    for part in found:
        base = part.made.get("base_model", {})
        evaluation = part.folder / "evaluation.json"
        shown = [
            f"{each.label} {each.shown(each.after)}"
            for each in measures(read_json(evaluation) if evaluation.is_file() else {})
        ]
        cells = (str(base.get("name")), str(base.get("license") or "unknown"), "; ".join(shown) or "nothing")
        yield f"| [{part.name}]({part.name}/README.md) | {' | '.join(map(_cell, cells))} |\n"
    yield "\nEach folder is a package of its own; `sha256sum -c SHA256SUMS` here checks every file of all of them.\n"


def _cell(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _python(found: Sequence[Part], folder: Path, module: str) -> None:
    """What makes the folder one that pip installs."""
    source = Path(handed.__file__).parent
    for name in ("__init__.py", "join.py"):
        shutil.copyfile(source / name, folder / module / name)
    first = found[0].made
    described = " ".join(str(first.get("description") or first["name"]).split()) if len(found) == 1 else "Models"
    version = first.get("versions", {}).get("transformers", "5")
    values = {"name": module.replace("_", "-"), "version": _version(_newest(found)), "description": described}
    values |= {"module": module}
    shown = {
        key: json.dumps("".join(filter(str.isprintable, value)), ensure_ascii=False) for key, value in values.items()
    }
    write_text(folder / "pyproject.toml", PROJECT.format(**shown, transformers=version))
    model = folder / module / "model"
    uncut = model / pieces.RENAMED["README.md"]
    card = (uncut if uncut.is_file() else model / "README.md").read_text(encoding="utf-8")
    load = "load()" if len(found) == 1 else f"load({found[0].name!r})"
    text = f"`import {module}`: `{module}.path()` is the folder below, `{module}.{load}` gives model and tokenizer.\n"
    write_text(folder / "README.md", pieces.atop(card, text))


def _version(created: str | None) -> str:
    """The day the model was made: 2026-11-05T… -> 2026.11.5."""
    day = re.match(r"(\d{4})-(\d{2})-(\d{2})", created or "")
    return ".".join(str(int(part)) for part in day.groups()) if day else "0"


def _module(found: Sequence[Part]) -> str:
    """A name that Python imports, from those of the runs."""
    name = re.sub(r"\W+", "_", "_".join(part.name for part in found).lower(), flags=re.ASCII).strip("_")
    taken = name in KNOWN or keyword.iskeyword(name)
    return f"model_{name}" if not name or name[0].isdigit() or taken else name


def _named(name: str) -> str:
    """A recipe's name as a folder's."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "model"
