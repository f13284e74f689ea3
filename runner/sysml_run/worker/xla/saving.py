"""What leaves the devices: weights and optimizer state as plain files, written by the first process alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sysml_run.recipe import Recipe
from sysml_run.rundir import whole_folder
from sysml_run.worker import models, ranks, zero

from . import sharding

LAYER = re.compile(r"\.layers\.([0-9]+)\.")
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # transformers' names


def state(model: Any) -> dict[str, Any]:
    """What was trained, and of what is frozen the matrices at both ends, which PEFT may save too; on the host."""
    ends = {id(end.weight) for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None}
    wanted = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or id(parameter) in ends
    }
    return sharding.gather(wanted, _layer)


def save_model(trainer: Any, folder: Path) -> None:
    """A checkpoint's weights, as `from_pretrained` reads them."""
    gathered = state(trainer.model)
    if ranks.first():
        folder.mkdir(parents=True, exist_ok=True)
        trainer.model.save_pretrained(folder, state_dict=gathered)
        trainer.processing_class.save_pretrained(folder)


def save_optimizer(trainer: Any, folder: Path) -> None:
    """Moments whole, so that they can be divided among another number of devices."""
    import torch

    found, names = trainer.optimizer.state_dict(), _numbered(trainer)
    states = {number: dict(each) for number, each in found["state"].items()}
    placed = {
        (number, name): value
        for number, each in states.items()
        for name, value in each.items()
        if isinstance(value, torch.Tensor) and value.device.type == "xla"
    }
    for (number, name), value in sharding.gather(placed, lambda key: _layer(names[key[0]])).items():
        states[number][name] = value
    if ranks.first():
        torch.save({**found, "state": states}, folder / OPTIMIZER)
        torch.save(trainer.lr_scheduler.state_dict(), folder / SCHEDULER)


def load_optimizer(trainer: Any, folder: Path) -> None:
    """Read what `save_optimizer` wrote; each moment is divided as its parameter is."""
    import torch

    trainer.optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))
    for each in zero.innermost(trainer.optimizer).state.values():
        for value in each.values():
            if isinstance(value, torch.Tensor) and value.device.type == "xla" and value.dim():
                sharding.mark(value)
    trainer.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER, weights_only=True))


def publish(trainer: Any, final: Path) -> None:
    """Write the model that the run leaves: the weights of now, or those of the best checkpoint."""
    recipe = trainer.recipe
    gathered = state(trainer.model) if trainer.best is None else None
    if not ranks.first():
        return
    with whole_folder(final) as folder:
        if gathered is not None:
            _write(recipe, trainer.model, gathered, folder)
        elif recipe.lora is None:
            best = models.load_model(trainer.best, recipe, recipe.model.dtype)
            best.save_pretrained(folder, max_shard_size=recipe.artifacts.max_shard_size)
        else:
            for file in trainer.best.glob("adapter_*"):
                shutil.copy(file, folder / file.name)
        trainer.processing_class.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's form with nothing filled in; the package has a card


def _write(recipe: Recipe, model: Any, gathered: dict[str, Any], folder: Path) -> None:
    """Full weights in the recipe's dtype, adapters as they are."""
    import torch

    if recipe.lora is None:
        gathered = {name: tensor.to(getattr(torch, recipe.model.dtype)) for name, tensor in gathered.items()}
    model.save_pretrained(folder, state_dict=gathered, max_shard_size=recipe.artifacts.max_shard_size)
    zero.name_dtype(folder, recipe)


def _numbered(trainer: Any) -> dict[int, str]:
    """The parameters' names by the numbers that the optimizer's state has them under."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    held = [each for group in zero.innermost(trainer.optimizer).param_groups for each in group["params"]]
    return {number: names[id(each)] for number, each in enumerate(held)}


def _layer(name: str) -> str:
    """The decoder layer that a parameter is of; the rest is gathered one by one."""
    found = LAYER.search(name)
    return found[1] if found else name
