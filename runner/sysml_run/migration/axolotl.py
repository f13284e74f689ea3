"""axolotl's flat keys -> a recipe; its datasets are in axolotl_data.py."""

from __future__ import annotations

from . import axolotl_data, machines, optimizing, pacing, targets
from .ledger import Ledger
from .paths import Folders
from .templates import chat_template
from .values import number, truth

PLAIN = {
    "revision_of_model": "model.revision",
    "model_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "sequence_len": "prompt.sequence_len",
    "sample_packing": "prompt.packing",
    "micro_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "max_grad_norm": "training.max_grad_norm",
    "logging_steps": "training.logging_steps",
    "cosine_min_lr_ratio": "optimizer.min_lr_ratio",
    "seed": "seed",
    "output_dir": "artifacts.dir",
}
ADAPTER = {
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "peft_use_rslora": "lora.use_rslora",
    "peft_use_dora": "lora.use_dora",
}
ATTENTION = {
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}
EXCESS = {"drop": "drop", "truncate": "right", "raise": "error"}
TRACKERS = {
    "wandb": ("use_wandb", "wandb_project"),
    "mlflow": ("use_mlflow", "mlflow_experiment_name", "mlflow_tracking_uri"),
    "tensorboard": ("use_tensorboard",),
    "trackio": ("use_trackio", "trackio_project_name"),
}
DEFAULT = "axolotl's default"


def carry(ledger: Ledger, folders: Folders) -> None:
    """Everything that has an equal; the rest is listed by the known names."""
    for name, target in PLAIN.items():
        ledger.same(target, name)
    _model(ledger, folders)
    axolotl_data.carry(ledger, folders)
    _prompt(ledger, folders)
    _adapter(ledger)
    _optimizer(ledger)
    _training(ledger)
    pacing.measuring(ledger)
    machines.precision(ledger, ("bf16", "bfloat16"), ("fp16", "float16"), "bf16")
    machines.gpus(ledger)
    machines.tf32(ledger)
    machines.sharding(ledger, folders)
    machines.tracking(ledger, TRACKERS)
    if ledger.get("wandb_project") is not None:
        ledger.look.append(
            "tracking: wandb reads project, entity and name from WANDB_PROJECT, WANDB_ENTITY, WANDB_NAME"
        )


def _model(ledger: Ledger, folders: Folders) -> None:
    base = ledger.get("base_model")
    if isinstance(base, str):
        ledger.carry("model.base_model", folders.model(base), "base_model")
    tokenizer = ledger.get("tokenizer_config")
    if isinstance(tokenizer, str) and tokenizer != base:
        ledger.carry("model.tokenizer", folders.model(tokenizer), "tokenizer_config")
    ledger.leave("tokenizer_config", "the same as base_model, which is where the tokenizer comes from anyway")
    _attention(ledger)


def _attention(ledger: Ledger) -> None:
    if ledger.word("attn_implementation") in ATTENTION.values():
        ledger.same("model.attn_implementation", "attn_implementation")
    for name, ours in ATTENTION.items():
        if truth(ledger.get(name)) and ("model", "attn_implementation") not in ledger.entries:
            ledger.carry("model.attn_implementation", ours, name)


def _prompt(ledger: Ledger, folders: Folders) -> None:
    ledger.make("prompt.sequence_len", 512, DEFAULT)
    excess = ledger.word("excess_length_strategy")
    if excess in EXCESS:
        ledger.carry("prompt.truncation", EXCESS[excess], "excess_length_strategy")
    ledger.make("prompt.truncation", "drop", f"{DEFAULT}: a row that is too long is left out")
    if truth(ledger.get("pad_to_sequence_len")) is not None:
        padding = "max_length" if truth(ledger.get("pad_to_sequence_len")) else "dynamic"
        ledger.carry("prompt.padding", padding, "pad_to_sequence_len")
    elif truth(ledger.get("sample_packing")):
        ledger.make("prompt.padding", "max_length", f"{DEFAULT} with sample_packing")
    _template(ledger, folders)


def _template(ledger: Ledger, folders: Folders) -> None:
    """A name, the text of a template, or the file that holds it."""
    own = axolotl_data.wording(ledger)
    if own is not None:
        ledger.make("prompt.template", *own)
        for name in ("chat_template", "chat_template_jinja"):
            if ledger.get(name) is not None:
                ledger.leave(name, f"without effect in axolotl: {own[1]}")
        return
    name, text = ledger.get("chat_template"), ledger.get("chat_template_jinja")
    if isinstance(text, str) and name in (None, "jinja"):
        found = folders.find(text) if "{" not in text else None
        if found is not None and found.is_file():
            written = found.read_text(encoding="utf-8", errors="replace")
            ledger.carry("prompt.template", written, "chat_template_jinja", "chat_template")
        elif "{" in text:
            ledger.carry("prompt.template", text, "chat_template_jinja", "chat_template")
    elif isinstance(name, str) and name != "jinja":
        ours, note = chat_template(name)
        ledger.carry("prompt.template", ours, "chat_template", note=note)
    ledger.make("prompt.template", "tokenizer", DEFAULT)
    axolotl_data.look_at_wording(ledger)


def _adapter(ledger: Ledger) -> None:
    adapter = ledger.get("adapter")
    if adapter not in ("lora", "qlora"):
        full = "a full fine-tune, which is a recipe without the section lora"
        words = f"empty: {full}" if adapter is None else f"recipes have LoRA or {full}"
        ledger.leave("adapter", words)
        for name in (*ADAPTER, "lora_target_modules", "lora_target_linear"):
            if ledger.get(name) is not None:
                ledger.leave(name, "has no effect in axolotl without adapter: lora or qlora")
        return
    ledger.section("lora", "adapter")
    for name, target in ADAPTER.items():
        ledger.same(target, name)
    ledger.make("lora.r", 8, "PEFT's default")
    ledger.make("lora.alpha", 8, "PEFT's default")
    _targets(ledger)
    if truth(ledger.get("load_in_8bit")):
        ledger.carry("quantization.load", "int8", "load_in_8bit")
    elif adapter == "qlora" or truth(ledger.get("load_in_4bit")):
        ledger.carry("quantization.load", "nf4", "load_in_4bit", "adapter")


def _targets(ledger: Ledger) -> None:
    """Every linear layer, or the named ones; both is every linear layer."""
    if truth(ledger.get("lora_target_linear")):
        also = [name for name in ("lora_target_linear", "lora_target_modules") if ledger.get(name) is not None]
        ledger.carry("lora.target_modules", "all-linear", *also)
    else:
        targets.carry(ledger, "lora_target_modules", "lora_target_linear")
    ledger.make("lora.target_modules", ["q_proj", "v_proj"], "PEFT's default for Llama and most others")


def _optimizer(ledger: Ledger) -> None:
    optimizing.optimizer(ledger, "optimizer", "adamw_torch_fused")
    optimizing.numbers(ledger)
    ledger.make("optimizer.weight_decay", 0.0, DEFAULT)
    optimizing.scheduler(ledger, "lr_scheduler", "cosine")
    optimizing.warmup(ledger, "lr_scheduler")
    if not ledger.has("warmup_steps") and not ledger.has("warmup_ratio"):
        ledger.make("optimizer.warmup_ratio", 0.03, f"{DEFAULT}, and 100 steps at most")


def _training(ledger: Ledger) -> None:
    pacing.length(ledger, "num_epochs", 1)
    pacing.saving(ledger)
    if any(place[-1] == "use_as" for place in ledger.entries):
        ledger.make("split.validation", 0, "axolotl: test_datasets are held out")
    pacing.held_out(ledger, "val_set_size", 0.05)
    whole, micro = number(ledger.get("batch_size")), number(ledger.get("micro_batch_size")) or 1
    if whole and not ledger.get("gradient_accumulation_steps"):
        steps = max(1, int(whole // micro))
        ledger.carry("training.gradient_accumulation_steps", steps, "batch_size", note="divided by micro_batch_size")
    ledger.leave("batch_size", "gradient_accumulation_steps is written too, and says the same")
    checkpointing = ledger.get("gradient_checkpointing")
    if truth(checkpointing) is None and checkpointing is not None:
        note = f"{checkpointing} moves activations too, which has no equal"
        ledger.carry("training.gradient_checkpointing", True, "gradient_checkpointing", note=note)
    else:
        ledger.same("training.gradient_checkpointing", "gradient_checkpointing")
