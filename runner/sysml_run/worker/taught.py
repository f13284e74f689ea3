"""Where a teacher's predictions lie in the cache: what they are known by, and the pointer that a run has to them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sysml_run import datafiles, teachers
from sysml_run.errors import StageError
from sysml_run.modelref import locate
from sysml_run.prepared import Prepared, intact
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json

from . import models

VERSION = 1  # part of the key; raise it when other predictions come of the same teacher
POINTER = "teacher.json"


@dataclass(frozen=True)
class Taught:
    """A teacher's predictions in the cache; `digest` is that of its weights, the rest is as the recipe has it."""

    key: str
    path: Path
    teacher: str
    digest: str
    temperature: float
    top_k: int


def load(rundir: RunDir) -> Taught:
    """What the run's `data/teacher.json` points at. Raises StageError where it is gone."""
    value = read_json(rundir.data / POINTER)
    taught = Taught(**value | {"path": Path(value["path"])})
    if intact(taught.path) is None:
        hint = f"delete {rundir.record('teacher')} and resume the run"
        raise StageError(f"the teacher's predictions in {taught.path} are gone", hint)
    return taught


def shown(name: str) -> str:
    """For records that are handed on: of a folder or file of this machine, its name."""
    return Path(name).name if name.startswith("/") else name


def wanted(recipe: Recipe) -> dict[str, Any]:
    """What step 0 is to find of a teacher."""
    if not teachers.wanted(recipe):
        return {}
    assert recipe.distillation is not None
    return asdict(recipe.distillation) | {"teacher": shown(recipe.distillation.teacher)}


def describe(recipe: Recipe, prepared: Prepared) -> Taught:
    """Where the predictions are or will be: the key covers the teacher, the rows, and what is kept how."""
    assert recipe.distillation is not None
    chosen, digest = recipe.distillation, weights_digest(teachers.as_base(recipe))
    shaped = {
        "version": VERSION,
        "teacher": digest,
        "rows": prepared.key,
        "split": split_name(recipe),
        "top_k": chosen.top_k,
        "temperature": chosen.temperature,
        "dtype": recipe.model.dtype,
        "precision": recipe.hardware.precision,
    }
    key = hashlib.sha256(json.dumps(shaped, sort_keys=True).encode()).hexdigest()
    folder = prepared.path / f"teacher-{key[:32]}"
    return Taught(key, folder, chosen.teacher, digest, chosen.temperature, chosen.top_k)


def split_name(recipe: Recipe) -> str:
    """The rows as training is fed them."""
    return "packed" if recipe.prompt.packing else "train"


def weights_digest(teacher: Recipe) -> str:
    """Of what the teacher computes with: the commit of a hub model, else SHA-256 of its files."""
    ref, folder = locate(teacher.model.base_model), models.model_dir(teacher)
    if ref.kind == "hub":
        return folder.name
    if ref.kind == "gguf":
        return datafiles.sha256(ref.path)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    found = {file.name: datafiles.sha256(file) for file in files}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
