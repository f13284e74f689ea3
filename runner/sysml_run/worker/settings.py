"""The recipe as arguments of TRL's SFTTrainer and PEFT: every number written out, nothing left to their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import AdamW, AdamW8bit, Evaluation, HardwareGpu, Lion, Lion8bit, Lora, Optimizer, Recipe
from sysml_run.schedule import PLATEAU
from sysml_run.schema import load

CLASSES: Mapping[str, str] = {
    "adamw": "torch.optim.adamw.AdamW",
    "adamw_8bit": "bitsandbytes.optim.adamw.AdamW",
    "lion": "bitsandbytes.optim.lion.Lion",
    "lion_8bit": "bitsandbytes.optim.lion.Lion",
    "adafactor": "transformers.optimization.Adafactor",
    "sgd": "torch.optim.sgd.SGD",
}
ON_XLA: Mapping[str, str] = {**CLASSES, "lion": "lion_pytorch.lion_pytorch.Lion"}


def arguments(recipe: Recipe, folder: str, name: str | None = None) -> Any:
    """An SFTConfig for the run that trackers call `name`; creating it joins this process to the others that train."""
    import torch
    from trl import SFTConfig

    from . import ranks, zero
    from .xla import device as xla

    training = recipe.training
    on_cpu, on_xla = recipe.hardware.accelerator == "cpu", xla.wanted(recipe)
    if on_xla:
        xla.ready()
    if zero.on():
        zero.make_ready(recipe)
    if isinstance(recipe.hardware, HardwareGpu):
        torch.set_float32_matmul_precision("high" if recipe.hardware.tf32 else "highest")
    found = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=training.micro_batch_size * (xla.slice_of(recipe).devices if on_xla else 1),
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        num_train_epochs=training.num_epochs or 1.0,
        max_steps=training.max_steps or -1,
        max_grad_norm=training.max_grad_norm,
        activation_checkpointing=training.gradient_checkpointing and not on_xla,  # XLA's own is used there
        dataloader_drop_last=on_xla,  # a smaller batch would have another shape
        dataloader_pin_memory=not on_xla,
        **optimizer(recipe.optimizer, fused=recipe.hardware.accelerator == "gpu"),
        **schedule(recipe.optimizer),
        logging_strategy="steps",
        logging_steps=training.logging_steps,
        logging_first_step=True,
        save_strategy="steps" if training.save_steps else "epoch",
        save_steps=training.save_steps or 500,
        save_total_limit=training.keep_checkpoints,
        **measuring(recipe.evaluation),
        restore_callback_states_from_checkpoint=True,  # how often early stopping has waited already
        bf16=recipe.hardware.precision == "bf16" and not on_xla and not (on_cpu and zero.on()),
        fp16=recipe.hardware.precision == "fp16",
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and ranks.world() > 1 else None,
        ddp_timeout=ranks.PATIENCE,
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        report_to=[],  # the trackers that the recipe asks for are callbacks of ours
        run_name=name,
        project=recipe.name,
        logging_nan_inf_filter=False,  # a loss that is no number stops the run
        disable_tqdm=True,
    )
    assert found.device  # asking for it is what joins
    if zero.on():
        zero.join(on_cpu)
    return found


def measuring(chosen: Evaluation) -> dict[str, Any]:
    """When the validation loss is measured in training, and by what checkpoints are compared then."""
    metric = chosen.best.metric if chosen.best else "eval_loss"
    return {
        "eval_strategy": "steps" if chosen.every_steps else "no",
        "eval_steps": chosen.every_steps,
        "load_best_model_at_end": chosen.best is not None,
        "metric_for_best_model": metric if chosen.every_steps else None,
        "greater_is_better": False if chosen.every_steps else None,
    }


def optimizer_class(recipe: Recipe) -> str:
    """The class that the optimizer is to be of; bitsandbytes has nothing for XLA."""
    return (ON_XLA if recipe.hardware.accelerator == "tpu" else CLASSES)[recipe.optimizer.name]


def optimizer(chosen: Optimizer, *, fused: bool = False) -> dict[str, Any]:
    """`optim` and its numbers; the library's name is the schema's `x-optim`, of which AdamW has a form for cards."""
    branches = {branch["properties"]["name"]["const"]: branch for branch in load()["properties"]["optimizer"]["oneOf"]}
    found: dict[str, Any] = {
        "optim": branches[chosen.name]["x-optim"],
        "learning_rate": chosen.learning_rate,
        "weight_decay": chosen.weight_decay,
    }
    if fused and chosen.name == "adamw":
        found["optim"] = "adamw_torch_fused"
    if isinstance(chosen, AdamW | AdamW8bit | Lion | Lion8bit):
        found |= {"adam_beta1": chosen.betas[0], "adam_beta2": chosen.betas[1]}
    if isinstance(chosen, AdamW | AdamW8bit):
        found["adam_epsilon"] = chosen.epsilon
    return found


def schedule(chosen: Optimizer) -> dict[str, Any]:
    """`lr_scheduler_type` and warm-up; transformers reads a warm-up below 1 as a share of the steps."""
    name, extra = str(chosen.lr_scheduler), dict[str, Any]()
    if name == "cosine" and chosen.min_lr_ratio:
        name, extra = "cosine_with_min_lr", {"min_lr_rate": chosen.min_lr_ratio}
    if name == "cosine_with_restarts":
        extra = {"num_cycles": chosen.num_cycles}
    if name in ("constant", PLATEAU):
        name = "constant_with_warmup"
    return {
        "lr_scheduler_type": name,
        "lr_scheduler_kwargs": extra,
        "warmup_steps": chosen.warmup_steps if chosen.warmup_steps is not None else chosen.warmup_ratio or 0,
    }


def adapter(lora: Lora, model: Any) -> Any:
    """A PEFT LoraConfig. Raises StageError for a named layer that the model does not have."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets(lora, model),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type="CAUSAL_LM",
    )


def targets(lora: Lora, model: Any) -> str | list[str]:
    """`all-linear` for PEFT to expand, or layer names that each match something. Raises StageError."""
    if lora.target_modules == "all-linear":
        return "all-linear"
    names, layers = [name for name, _ in model.named_modules() if name], matrices(model)
    hint = f"it has {', '.join(sorted({_leaf(name) for name in layers - embeddings(model)}))}"
    if lora.target_modules == "attention":
        found = attention(layers)
        if not found:
            raise StageError("lora.target_modules: no attention projections were found in the model", hint)
        return found
    for wanted in lora.target_modules:
        matched = {name for name in names if name == wanted or name.endswith(f".{wanted}")}
        if not matched:
            raise StageError(f"lora.target_modules: no layer of the model is called {wanted!r}", hint)
        if not matched & layers:
            raise StageError(f"lora.target_modules: {wanted!r} is no linear layer", hint)
    return list(lora.target_modules)


def attention(layers: set[str]) -> list[str]:
    """Short names of the layers right inside an attention block that name no layer elsewhere."""
    inside = {name for name in layers if re.search(r"(attn|attention)\.[^.]+$", name)}
    elsewhere = {_leaf(name) for name in layers - inside}
    return sorted({_leaf(name, 2 if _leaf(name) in elsewhere else 1) for name in inside})


def matrices(model: Any) -> set[str]:
    """Names of the layers whose weight is a matrix, which an adapter can stand beside."""
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    return {name for name, weight in weights if weight is not None and weight.ndim == 2}


def embeddings(model: Any) -> set[str]:
    """Names of the layers between tokens and vectors, at both ends of the model."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name for name, module in model.named_modules() if any(module is end for end in ends)}


def _leaf(name: str, parts: int = 1) -> str:
    return ".".join(name.split(".")[-parts:])
