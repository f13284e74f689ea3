"""What is written is what runs: checked on the built trainer before the first step, and recorded."""

from __future__ import annotations

import hashlib
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Lora, Optimizer, Recipe

from . import fused, kbit, taught, zero
from .batches import IGNORED, tokens
from .data.chat import Chat
from .settings import optimizer_class

SEEN = 32


def check(recipe: Recipe, trainer: Any) -> dict[str, Any]:
    """The facts of the run as built. Raises StageError where one is not what the recipe says."""
    model, optimizer = trainer.model, zero.innermost(trainer.optimizer)
    facts = {
        "optimizer": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        **zero.facts(trainer),
        **trainer.facts(),
        **_parameters(trainer, optimizer),
        **kbit.check(recipe, model),
        **_schedule(trainer),
        "batch": _batch(trainer),
        **fused.facts(model),
        "lora_modules": _lora_modules(model),
        "frozen_dtypes": sorted({str(each.dtype) for each in model.parameters() if not each.requires_grad}),
        "loss_share": _loss_share(trainer),
        "template_sha256": _template(recipe, trainer.processing_class),
    }
    wanted = recipe.training.gradient_accumulation_steps or 1
    _same("optimizer", facts["optimizer"], optimizer_class(recipe))
    _same("precision", facts["precision"], {"fp32": "no"}.get(recipe.hardware.precision, recipe.hardware.precision))
    _same("learning rate", facts["learning_rate"], recipe.optimizer.learning_rate)
    _same("micro batch and accumulation", facts["batch"][:2], [recipe.training.micro_batch_size, wanted])
    for name, value in (zero.wanted(recipe) | fused.wanted(recipe) | taught.wanted(recipe)).items():
        _same(name.replace("_", " "), facts[name], value)
    _same("gradient clipping", trainer.args.max_grad_norm, recipe.training.max_grad_norm)
    _optimizer(recipe.optimizer, optimizer)
    _rates(recipe.optimizer, facts)
    if recipe.lora is not None:
        _adapters(recipe.lora, model)
    return facts


def _same(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise StageError(f"step 0: {what} is {found}, the recipe says {wanted}", "nothing was trained")


def _optimizer(chosen: Optimizer, built: Any) -> None:
    """Weight decay, betas and epsilon of the built groups; the group of biases and norms is not decayed."""
    decays = {group["weight_decay"] for group in built.param_groups}
    _same("weight decay", sorted(decays - {0.0}), [chosen.weight_decay] if chosen.weight_decay else [])
    for name, key in (("betas", "betas"), ("epsilon", "eps")):
        wanted = getattr(chosen, name, None)
        if wanted is not None:
            for group in built.param_groups:
                _same(name, _plain(group.get(key)), _plain(wanted))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _rates(chosen: Optimizer, facts: dict[str, Any]) -> None:
    """Where the schedule starts and what it never exceeds; the ends of those that have one."""
    warm = bool(chosen.warmup_steps or chosen.warmup_ratio)
    _same("first learning rate", facts["first_learning_rate"], 0.0 if warm else chosen.learning_rate)
    ends = {"linear": 0.0, "cosine": chosen.min_lr_ratio, "constant": 1.0}
    if chosen.lr_scheduler in ends:
        end = round(facts["end_learning_rate"] / chosen.learning_rate, 6)
        _same("end of the schedule, as a share of the learning rate", end, round(ends[chosen.lr_scheduler], 6))


def _adapters(lora: Lora, model: Any) -> None:
    """Every adapter is trained, and every layer the recipe names has one."""
    if not _lora_modules(model):
        raise StageError("no layer of the model got an adapter", "see lora.target_modules")
    for name, parameter in model.named_parameters():
        if "lora_" in name and not parameter.requires_grad:
            raise StageError(f"step 0: the adapter {name} is not trained", "nothing was trained")
    if lora.target_modules == "all-linear":
        bare = [name for name, module in model.named_modules() if _bare(name, module, model)]
        _same("linear layers without an adapter", bare, [])


def _bare(name: str, module: Any, model: Any) -> bool:
    import torch

    inside = ".lora_" in name or name.endswith(".base_layer")
    return isinstance(module, torch.nn.Linear) and not inside and module is not model.get_output_embeddings()


def _loss_share(trainer: Any) -> float:
    """Share of the tokens of the first rows, as they are fed, that count in the loss; each row must have one."""
    rows = [trainer.train_dataset[number] for number in range(min(SEEN, len(trainer.train_dataset)))]
    batch = trainer.data_collator(rows)
    labelled = (batch["labels"] != IGNORED).sum(1)
    if not bool((labelled > 0).all()):
        raise StageError("step 0: a row has no token that counts in the loss", "nothing was trained")
    return round(float(labelled.sum() / tokens(batch)), 4)


def _template(recipe: Recipe, tokenizer: Any) -> str:
    return hashlib.sha256(Chat(tokenizer, recipe.prompt.template).published().encode()).hexdigest()


def _parameters(trainer: Any, optimizer: Any) -> dict[str, Any]:
    """Counts of numbers; the optimizer must hold each trainable tensor once and no other.

    Under DeepSpeed that is what it was given: it then holds one long vector, or this process's share of it.
    """
    model, groups = trainer.model, trainer.held if trainer.is_deepspeed_enabled else optimizer.param_groups
    held = [parameter for group in groups for parameter in group["params"]]
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if sorted(map(id, held)) != sorted(map(id, trainable.values())):
        raise StageError("step 0: the optimizer does not hold exactly the trainable parameters", "nothing was trained")
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    names = [name for name, parameter in trainable.items() if id(parameter) in decayed]
    wrong = [name for name in names if name.endswith("bias") or "norm" in name.lower()]
    if wrong:
        raise StageError(f"step 0: {wrong[0]} would be decayed", "nothing was trained")
    return {
        "trainable_parameters": sum(map(kbit.numbers, trainable.values())),
        "optimizer_parameters": sum(map(kbit.numbers, held)),
        "decayed_parameters": sum(kbit.numbers(trainable[name]) for name in names),
        "total_parameters": sum(map(kbit.numbers, model.parameters())),
        "trainable_dtypes": sorted({str(parameter.dtype) for parameter in trainable.values()}),
        "learning_rate": optimizer.param_groups[0].get("initial_lr", optimizer.param_groups[0]["lr"]),
    }


def _schedule(trainer: Any) -> dict[str, Any]:
    """Steps, and the learning rate of the first, highest and last step and after it."""
    total, scheduler = trainer.state.max_steps, _inner_scheduler(trainer.lr_scheduler)
    highest = scheduler.optimizer.param_groups[0]["initial_lr"]  # base_lrs falls on a plateau
    rates = [highest * scheduler.lr_lambdas[0](step) for step in range(total + 1)]
    return {
        "steps": total,
        "first_learning_rate": rates[0],
        "peak_learning_rate": max(rates),
        "last_learning_rate": rates[-2],
        "end_learning_rate": rates[-1],
    }


def _inner_scheduler(scheduler: Any) -> Any:
    return getattr(scheduler, "scheduler", scheduler)


def _batch(trainer: Any) -> list[int]:
    arguments = trainer.args
    processes = trainer.accelerator.num_processes
    return [arguments.per_device_train_batch_size // trainer.devices, arguments.gradient_accumulation_steps, processes]


def _lora_modules(model: Any) -> int:
    return sum(hasattr(module, "lora_A") for module in model.modules())
