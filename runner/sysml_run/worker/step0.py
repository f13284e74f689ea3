"""What is written is what runs: checked on the built trainer before the first step, and recorded."""

from __future__ import annotations

from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe

from .settings import CLASSES


def check(recipe: Recipe, trainer: Any) -> dict[str, Any]:
    """The facts of the run as built. Raises StageError where one is not what the recipe says."""
    model, optimizer = trainer.model, _inner(trainer.optimizer)
    facts = {
        "optimizer": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        **_parameters(model, optimizer),
        **_schedule(trainer),
        "batch": _batch(trainer),
        "precision": trainer.accelerator.mixed_precision,
        "attention": model.config._attn_implementation,
        "lora_modules": _lora_modules(model),
    }
    wanted = recipe.training.gradient_accumulation_steps or 1
    _same("optimizer", facts["optimizer"], CLASSES[recipe.optimizer.name])
    _same("precision", facts["precision"], {"bf16": "bf16", "fp32": "no"}[recipe.hardware.precision])
    _same("learning rate", facts["learning_rate"], recipe.optimizer.learning_rate)
    _same("micro batch and accumulation", facts["batch"][:2], [recipe.training.micro_batch_size, wanted])
    _same("processes", facts["batch"][2], getattr(recipe.hardware, "devices", 1))
    _same("parameters in the optimizer", facts["optimizer_parameters"], facts["trainable_parameters"])
    if recipe.lora is not None and not facts["lora_modules"]:
        raise StageError("no layer of the model got an adapter", "see lora.target_modules")
    return facts


def _same(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise StageError(f"step 0: {what} is {found}, the recipe says {wanted}", "nothing was trained")


def _inner(optimizer: Any) -> Any:
    """The library's optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _parameters(model: Any, optimizer: Any) -> dict[str, Any]:
    """Counts of numbers; the optimizer must hold each trainable tensor once and no other."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if sorted(map(id, held)) != sorted(map(id, trainable.values())):
        raise StageError("step 0: the optimizer does not hold exactly the trainable parameters", "nothing was trained")
    decayed = {
        id(parameter) for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]
    }
    names = [name for name, parameter in trainable.items() if id(parameter) in decayed]
    wrong = [name for name in names if name.endswith("bias") or "norm" in name.lower()]
    if wrong:
        raise StageError(f"step 0: {wrong[0]} would be decayed", "nothing was trained")
    return {
        "trainable_parameters": sum(parameter.numel() for parameter in trainable.values()),
        "optimizer_parameters": sum(parameter.numel() for parameter in held),
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_dtypes": sorted({str(parameter.dtype) for parameter in trainable.values()}),
        "learning_rate": optimizer.param_groups[0].get("initial_lr", optimizer.param_groups[0]["lr"]),
    }


def _schedule(trainer: Any) -> dict[str, Any]:
    """Steps, and the learning rate of the first, highest and last step where the schedule is a function of the step."""
    total, scheduler = trainer.state.max_steps, _inner_scheduler(trainer.lr_scheduler)
    shapes = getattr(scheduler, "lr_lambdas", None)
    if not shapes:
        return {"steps": total}
    rates = [scheduler.base_lrs[0] * shapes[0](step) for step in range(total)]
    return {
        "steps": total,
        "first_learning_rate": rates[0],
        "peak_learning_rate": max(rates),
        "last_learning_rate": rates[-1],
    }


def _inner_scheduler(scheduler: Any) -> Any:
    return getattr(scheduler, "scheduler", scheduler)


def _batch(trainer: Any) -> list[int]:
    arguments = trainer.args
    processes = trainer.accelerator.num_processes
    return [arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps, processes]


def _lora_modules(model: Any) -> int:
    return sum(hasattr(module, "lora_A") for module in model.modules())
