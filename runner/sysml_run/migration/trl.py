"""What `trl sft --config` reads -> a recipe."""

from __future__ import annotations

from . import machines, pacing, preference, splits, targets, transformers_keys
from .ledger import Ledger
from .paths import Folders
from .values import truth

PLAIN = {
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "max_length": "prompt.sequence_len",
    "max_seq_length": "prompt.sequence_len",
    "packing": "prompt.packing",
    "per_device_train_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "max_grad_norm": "training.max_grad_norm",
    "logging_steps": "training.logging_steps",
    "seed": "seed",
    "output_dir": "artifacts.dir",
}
ADAPTER = {
    "lora_r": ("lora.r", 16),
    "lora_alpha": ("lora.alpha", 32),
    "lora_dropout": ("lora.dropout", 0.05),
    "use_rslora": ("lora.use_rslora", None),
    "use_dora": ("lora.use_dora", None),
}
TRUNCATION = {"keep_start": "right", "keep_end": "left"}
DTYPES = ("bfloat16", "float16", "float32")
ATTENTION = ("eager", "sdpa", "flash_attention_2")
DEFAULT = "trl's default"


def carry(ledger: Ledger, folders: Folders) -> None:
    """Everything that has an equal; the rest is listed by the known names."""
    for name, target in PLAIN.items():
        if ledger.get(name) is not None and tuple(target.split(".")) not in ledger.entries:
            ledger.same(target, name)
    _model(ledger, folders)
    _data(ledger, folders)
    _prompt(ledger, folders)
    _adapter(ledger)
    _training(ledger)
    if truth(ledger.get("use_cpu")):
        ledger.carry("hardware.accelerator", "cpu", "use_cpu")
    machines.precision(ledger, ("bf16",), ("fp16",), "bf16")
    machines.gpus(ledger)
    machines.tf32(ledger)
    if ledger.entries["hardware", "accelerator"].value == "gpu":
        machines.sharding(ledger, folders)
    machines.reporting(ledger)


def _model(ledger: Ledger, folders: Folders) -> None:
    if isinstance(ledger.get("model_name_or_path"), str):
        ledger.carry("model.base_model", folders.model(ledger.get("model_name_or_path")), "model_name_or_path")
    for name in ("dtype", "torch_dtype"):
        if ledger.word(name) in DTYPES:
            ledger.same("model.dtype", name)
        elif ledger.word(name) == "auto":
            ledger.leave(name, "what the precision asks for")
    if ledger.get("attn_implementation") in ATTENTION:
        ledger.same("model.attn_implementation", "attn_implementation")


def _data(ledger: Ledger, folders: Folders) -> None:
    """`dataset_name`, or a mixture; what a row is trl finds out when it sees one."""
    items = ledger.get("datasets")
    for at, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and isinstance(item.get("path"), str):
            _item(ledger, folders, f"datasets.{at}", str(item["path"]))
    name = ledger.get("dataset_name")
    if not ledger.entries.get(("datasets", 0, "path")) and isinstance(name, str):
        path = folders.data(name)
        ledger.carry("datasets.0.path", path, "dataset_name")
        _kind(ledger, "datasets.0")
        _splits(ledger, path)
    ledger.leave("dataset_name", "datasets is written too, and wins")


def _item(ledger: Ledger, folders: Folders, at: str, written: str) -> None:
    path = folders.data(written)
    ledger.carry(f"{at}.path", path, f"{at}.path")
    _kind(ledger, at)
    if path.startswith("hub:"):
        ledger.same(f"{at}.config", f"{at}.name")
        splits.carry(ledger, f"{at}.split", f"{at}.split")


def _splits(ledger: Ledger, path: str) -> None:
    """A split of its own for evaluation is a second dataset, which is held out whole."""
    if not path.startswith("hub:"):
        ledger.leave("dataset_train_split", "a file is read whole; a split is of a hub dataset")
        return
    ledger.same("datasets.0.config", "dataset_config")
    splits.carry(ledger, "datasets.0.split", "dataset_train_split")
    if ledger.get("dataset_test_split") is not None and ledger.word("eval_strategy") in ("steps", "epoch"):
        ledger.make("datasets.1.path", path, "trl: dataset_test_split")
        ledger.make("datasets.1.type", ledger.entries["datasets", 0, "type"].value, "as above")
        ledger.make("datasets.1.use_as", "validation", "trl: dataset_test_split")
        splits.carry(ledger, "datasets.1.split", "dataset_test_split")


def _kind(ledger: Ledger, at: str) -> None:
    if preference.said(ledger):
        ledger.make(f"{at}.type", preference.TYPE, f"trl: {preference.said(ledger)}; {preference.WHY}")
    elif ledger.get("dataset_text_field") == "text":
        ledger.carry(f"{at}.type", "text", "dataset_text_field")
    elif truth(ledger.get("completion_only_loss")):
        ledger.make(f"{at}.type", "prompt_completion", "trl: completion_only_loss")
    else:
        ledger.make(f"{at}.type", "messages", "trl finds out by itself: write what a row is")
        ledger.look.append(f"{at}.type: trl finds out what a row is; messages is a guess")


def _prompt(ledger: Ledger, folders: Folders) -> None:
    ledger.make("prompt.sequence_len", 1024, DEFAULT)
    if ledger.word("truncation_mode") in TRUNCATION:
        ledger.carry("prompt.truncation", TRUNCATION[ledger.word("truncation_mode")], "truncation_mode")
    ledger.make("prompt.truncation", "right", f"{DEFAULT}: keep_start")
    path = ledger.get("chat_template_path")
    found = folders.find(path) if isinstance(path, str) else None
    if found is not None and found.is_file():
        ledger.carry("prompt.template", found.read_text(encoding="utf-8", errors="replace"), "chat_template_path")
    _loss(ledger)
    ledger.leave("max_seq_length", "max_length is written too, and is the newer name")


def _loss(ledger: Ledger) -> None:
    kinds = {entry.value for place, entry in ledger.entries.items() if place[0] == "datasets" and place[-1] == "type"}
    if truth(ledger.get("assistant_only_loss")):
        ledger.carry("prompt.train_on", "assistant", "assistant_only_loss")
    elif truth(ledger.get("completion_only_loss")):
        ledger.carry("prompt.train_on", "completion", "completion_only_loss")
    elif truth(ledger.get("completion_only_loss")) is False:
        ledger.carry("prompt.train_on", "all", "completion_only_loss")
    elif kinds <= {"messages", "text"}:
        ledger.make("prompt.train_on", "all", f"{DEFAULT} for messages and text")


def _adapter(ledger: Ledger) -> None:
    if not truth(ledger.get("use_peft")):
        for name in (*ADAPTER, "lora_target_modules"):
            ledger.leave(name, "has no effect in trl without use_peft: true")
        ledger.leave("use_peft", "a full fine-tune is a recipe without the section lora")
    else:
        ledger.section("lora", "use_peft")
        for name, (target, default) in ADAPTER.items():
            ledger.same(target, name)
            if default is not None:
                ledger.make(target, default, DEFAULT)
        targets.carry(ledger, "lora_target_modules")
        ledger.make("lora.target_modules", ["q_proj", "v_proj"], "PEFT's default for Llama and most others")
    for name, load in (("load_in_4bit", "nf4"), ("load_in_8bit", "int8")):
        if truth(ledger.get(name)):
            ledger.carry("quantization.load", load, name)


def _training(ledger: Ledger) -> None:
    transformers_keys.training(ledger, "adamw_torch_fused", 2e-5, DEFAULT)
    checkpointing = [
        name for name in ("gradient_checkpointing", "activation_checkpointing") if ledger.get(name) is not None
    ]
    for name in checkpointing:
        ledger.same("training.gradient_checkpointing", name)
    ledger.make("training.gradient_checkpointing", True, DEFAULT)
    pacing.saving(ledger, 500)
    pacing.measuring(ledger)
    if any(place[-1] == "use_as" for place in ledger.entries):
        ledger.make("split.validation", 0, "trl: the validation rows have a dataset of their own")
    pacing.held_out(ledger, "test_split_size", 0.05)
