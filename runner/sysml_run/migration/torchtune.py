"""torchtune's sections of classes and their arguments -> a recipe; its datasets are in torchtune_data.py."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from sysml_run.document import Document
from sysml_run.errors import UsageError

from . import machines, pacing, torchtune_data
from .ledger import Ledger
from .paths import Folders
from .values import number, truth

PLAIN = {
    "batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "log_every_n_steps": "training.logging_steps",
    "enable_activation_checkpointing": "training.gradient_checkpointing",
    "run_val_every_n_steps": "evaluation.every_steps",
    "tokenizer.max_seq_len": "prompt.sequence_len",
    "seed": "seed",
    "output_dir": "artifacts.dir",
    "optimizer.lr": "optimizer.learning_rate",
    "optimizer.weight_decay": "optimizer.weight_decay",
    "optimizer.betas": "optimizer.betas",
    "optimizer.eps": "optimizer.epsilon",
    "lr_scheduler.num_warmup_steps": "optimizer.warmup_steps",
}
ADAPTER = {
    "lora_rank": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "use_dora": "lora.use_dora",
}
MODULES = {"output_proj": "o_proj"}
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
OPTIMIZERS = {
    "AdamW": "adamw",
    "AdamW8bit": "adamw_8bit",
    "PagedAdamW": "adamw",
    "PagedAdamW8bit": "adamw_8bit",
    "Lion": "lion",
    "Lion8bit": "lion_8bit",
    "SGD": "sgd",
}
LOGGERS = {"WandBLogger": "wandb", "TensorBoardLogger": "tensorboard"}
DEFAULT = "torchtune's default"
MEANT = re.compile(r"\$\{([\w.]+)\}")


def interpolated(document: Document) -> Document:
    """The document with `${output_dir}` and the like written out. Raises UsageError for one that goes in a circle."""

    def said(name: str, depth: int) -> str:
        value: Any = document.value
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return f"${{{name}}}" if value is None or isinstance(value, dict | list) else str(full(value, depth + 1))

    def full(value: Any, depth: int) -> Any:
        if depth > 50:
            raise UsageError(f"{document.source}: an interpolation means itself", "write the value out")
        if isinstance(value, dict):
            return {key: full(below, depth) for key, below in value.items()}
        if isinstance(value, list):
            return [full(below, depth) for below in value]
        return MEANT.sub(lambda found: said(found[1], depth), value) if isinstance(value, str) else value

    return replace(document, value=full(document.value, 0))


def carry(ledger: Ledger, folders: Folders) -> None:
    """Everything that has an equal; the rest is listed by the known names."""
    for name, target in PLAIN.items():
        ledger.same(target, name)
    _model(ledger, folders)
    torchtune_data.carry(ledger, folders)
    _adapter(ledger)
    _optimizer(ledger)
    _length(ledger)
    _machine(ledger)
    _distillation(ledger, folders)
    pacing.none_held_out(ledger, 0.05)


def class_name(ledger: Ledger, section: str) -> str:
    """The last part of a section's `_component_`."""
    return str(ledger.get(f"{section}._component_") or "").rpartition(".")[2]


def _model(ledger: Ledger, folders: Folders) -> None:
    folder = ledger.get("checkpointer.checkpoint_dir")
    if isinstance(folder, str):
        ledger.carry("model.base_model", folders.model(folder), "checkpointer.checkpoint_dir")
    if "prompt" not in {place[0] for place in ledger.entries}:
        ledger.look.append("prompt.sequence_len: torchtune names none; the recipe's default is 2048 tokens")


def _adapter(ledger: Ledger) -> None:
    builder = class_name(ledger, "model")
    if not builder.startswith(("lora_", "qlora_")):
        return
    ledger.section("lora", "model._component_")
    for name, target in ADAPTER.items():
        ledger.same(target, f"model.{name}")
    ledger.make("lora.r", 8, DEFAULT)
    ledger.make("lora.alpha", 16, DEFAULT)
    named = ledger.get("model.lora_attn_modules")
    attention = [MODULES.get(name, name) for name in named] if isinstance(named, list) else ["q_proj", "v_proj"]
    mlp = FEED_FORWARD if truth(ledger.get("model.apply_lora_to_mlp")) else []
    ledger.carry("lora.target_modules", [*attention, *mlp], "model.lora_attn_modules", "model.apply_lora_to_mlp")
    if builder.startswith("qlora_") or truth(ledger.get("model.quantize_base")):
        ledger.carry("quantization.load", "nf4", "model._component_", "model.quantize_base")


def _optimizer(ledger: Ledger) -> None:
    name = class_name(ledger, "optimizer")
    if name in OPTIMIZERS:
        note = "without the pages in host memory" if name.startswith("Paged") else ""
        ledger.carry("optimizer.name", OPTIMIZERS[name], "optimizer._component_", note=note)
    elif name:
        ledger.leave("optimizer._component_", f"recipes do not have {name}: adamw is written in its place")
        ledger.make("optimizer.name", "adamw", f"recipes do not have {name}; choose again")
        ledger.look.append(f"optimizer.name: adamw stands for {name}")
    scheduler = class_name(ledger, "lr_scheduler")
    if "cosine" in scheduler:
        ledger.carry("optimizer.lr_scheduler", "cosine", "lr_scheduler._component_")
        ledger.leave("lr_scheduler.num_cycles", "half a cosine, from the highest rate down, is what cosine means")
    elif not scheduler:
        ledger.make("optimizer.lr_scheduler", "constant", "torchtune without lr_scheduler keeps the rate")


def _length(ledger: Ledger) -> None:
    """`max_steps_per_epoch` times the epochs is the length of the run."""
    epochs, steps = number(ledger.get("epochs")), number(ledger.get("max_steps_per_epoch"))
    if steps is not None and steps > 0:
        whole = int(steps * (epochs or 1))
        ledger.carry("training.max_steps", whole, "max_steps_per_epoch", "epochs", note="steps of every epoch")
    else:
        pacing.length(ledger, "epochs", 1)
    if ledger.get("clip_grad_norm") is not None:
        ledger.same("training.max_grad_norm", "clip_grad_norm")
    else:
        ledger.carry("training.max_grad_norm", 0, "clip_grad_norm", note="gradients are not clipped")


def _machine(ledger: Ledger) -> None:
    if ledger.get("device") in ("cuda", "cpu"):
        ledger.carry("hardware.accelerator", "cpu" if ledger.get("device") == "cpu" else "gpu", "device")
    machines.gpus(ledger)
    if ledger.word("dtype") in machines.FORMATS:
        ledger.same("hardware.precision", "dtype")
        ledger.make("model.dtype", machines.FORMATS[ledger.word("dtype")], "torchtune: dtype")
    if ledger.entries["hardware", "accelerator"].value == "gpu":
        why = "whole copies on each GPU; torchtune's distributed recipes shard as ZeRO 3 does"
        ledger.make("hardware.zero_stage", None, why)
    logger = class_name(ledger, "metric_logger")
    if logger in LOGGERS:
        ledger.carry("tracking", [LOGGERS[logger]], "metric_logger._component_")


def _distillation(ledger: Ledger, folders: Folders) -> None:
    """Complete with a teacher's folder; torchtune's losses do not soften the predictions."""
    folder = ledger.get("teacher_checkpointer.checkpoint_dir")
    if isinstance(folder, str):
        ledger.carry("distillation.teacher", folders.model(folder), "teacher_checkpointer.checkpoint_dir")
        ledger.same("distillation.alpha", "kd_ratio")
        ledger.make("distillation.temperature", 1.0, "torchtune softens no predictions")
