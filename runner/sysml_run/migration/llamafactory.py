"""LLaMA-Factory's flat keys -> a recipe; its dataset_info.json is read in llamafactory_data.py."""

from __future__ import annotations

from collections.abc import Mapping

from . import llamafactory_data, machines, pacing, targets, transformers_keys
from .ledger import Ledger
from .paths import Folders
from .templates import chat_template
from .values import number, truth

PLAIN = {
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "cutoff_len": "prompt.sequence_len",
    "per_device_train_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "max_grad_norm": "training.max_grad_norm",
    "logging_steps": "training.logging_steps",
    "seed": "seed",
    "output_dir": "artifacts.dir",
}
ADAPTER = {
    "lora_rank": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "use_rslora": "lora.use_rslora",
    "use_dora": "lora.use_dora",
}
ATTENTION = {"auto": "auto", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}
TEMPLATES = {"default": "tokenizer", "empty": "none", "llama3": "llama3", "chatml": "chatml", "alpaca": "alpaca"}
LOADED: Mapping[float, str] = {4: "nf4", 8: "int8"}
DEFAULT = "LLaMA-Factory's default"


def carry(ledger: Ledger, folders: Folders) -> None:
    """Everything that has an equal; the rest is listed by the known names."""
    for name, target in PLAIN.items():
        ledger.same(target, name)
    if isinstance(ledger.get("model_name_or_path"), str):
        ledger.carry("model.base_model", folders.model(ledger.get("model_name_or_path")), "model_name_or_path")
    if ledger.word("flash_attn") in ATTENTION:
        ledger.carry("model.attn_implementation", ATTENTION[ledger.word("flash_attn")], "flash_attn")
    llamafactory_data.carry(ledger, folders)
    _prompt(ledger)
    _adapter(ledger)
    _quantization(ledger)
    _training(ledger)
    machines.precision(ledger, ("bf16", "pure_bf16"), ("fp16",), "fp32")
    machines.gpus(ledger)
    machines.tf32(ledger)
    machines.sharding(ledger, folders)
    machines.reporting(ledger)


def _prompt(ledger: Ledger) -> None:
    ledger.make("prompt.sequence_len", 2048, DEFAULT)
    ledger.make("prompt.truncation", "right", "LLaMA-Factory cuts the end of what is too long")
    packing = [name for name in ("packing", "neat_packing") if truth(ledger.get(name))]
    if packing:
        ledger.carry("prompt.packing", True, *packing)
    name = ledger.get("template")
    if isinstance(name, str):
        ours, note = (TEMPLATES[name], "") if name in TEMPLATES else chat_template(name)
        ledger.carry("prompt.template", ours, "template", note=note)
    if truth(ledger.get("train_on_prompt")) or ledger.get("stage") == "pt":
        ledger.carry("prompt.train_on", "all", "train_on_prompt", "stage")
    elif truth(ledger.get("mask_history")):
        ledger.carry("prompt.train_on", "completion", "mask_history")
    ledger.make("prompt.train_on", "assistant", f"{DEFAULT}: every answer of a conversation")
    if ledger.get("stage") == "sft":
        ledger.settle("prompt.train_on", "stage", *(("train_on_prompt",) if ledger.has("train_on_prompt") else ()))


def _adapter(ledger: Ledger) -> None:
    kind = ledger.get("finetuning_type") or "lora"
    if kind != "lora":
        if kind == "full":
            ledger.leave("finetuning_type", "a full fine-tune is a recipe without the section lora")
        else:
            ledger.look.append(f"lora: finetuning_type {kind} has no equal; every weight is trained")
        for name in (*ADAPTER, "lora_target"):
            ledger.leave(name, "has no effect in LLaMA-Factory without finetuning_type: lora")
        return
    if ledger.has("finetuning_type"):
        ledger.section("lora", "finetuning_type")
    for name, target in ADAPTER.items():
        ledger.same(target, name)
    ledger.make("lora.r", 8, DEFAULT)
    ledger.make("lora.alpha", (number(ledger.get("lora_rank")) or 8) * 2, f"{DEFAULT}: twice the rank")
    if ledger.get("lora_target") in ("all", ["all"]):
        ledger.carry("lora.target_modules", "all-linear", "lora_target")
    else:
        targets.carry(ledger, "lora_target")
    ledger.make("lora.target_modules", "all-linear", DEFAULT)


def _quantization(ledger: Ledger) -> None:
    """bitsandbytes' 4 and 8 bits; other methods of holding the base have no equal."""
    bits = number(ledger.get("quantization_bit"))
    method, kind = ledger.get("quantization_method"), ledger.get("quantization_type")
    if bits is not None and bits in LOADED and method in (None, "bnb", "bitsandbytes") and kind in (None, "nf4"):
        also = [name for name in ("quantization_method", "quantization_type") if ledger.get(name) is not None]
        ledger.carry("quantization.load", LOADED[bits], "quantization_bit", *also)


def _training(ledger: Ledger) -> None:
    transformers_keys.training(ledger, "adamw_torch", 5e-5, DEFAULT)
    off = truth(ledger.get("disable_gradient_checkpointing"))
    if off is not None:
        ledger.carry("training.gradient_checkpointing", not off, "disable_gradient_checkpointing")
    ledger.make("training.gradient_checkpointing", True, DEFAULT)
    pacing.saving(ledger, 500)
    pacing.held_out(ledger, "val_size", 0.05)
    pacing.measuring(ledger)
    ledger.same("evaluation.early_stopping.patience", "early_stopping_steps")
