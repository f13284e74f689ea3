"""The train stage: the base model, our rows and the recipe's settings in TRL's SFTTrainer."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from sysml_run import manifest
from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, whole_folder

from . import models
from .data import store


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Train, or go on from the newest checkpoint, and leave `model/`. Raises KeyboardInterrupt when asked to stop."""
    trainer, stopping, facts = build(recipe, rundir)
    checkpoint = newest(rundir.checkpoints)
    if checkpoint:
        print(f"train: going on from {checkpoint.name}", flush=True)
    clock = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopping.asked:
        raise KeyboardInterrupt
    seconds = time.monotonic() - clock
    save(recipe, trainer, rundir)
    return {
        "base": models.base_facts(recipe),
        "versions": manifest.versions(),
        "weights_in_training": training_dtype(recipe),
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "tokens": trainer.tokens,
        "tokens_per_second": round(trainer.tokens / seconds, 1),
        "training_seconds": round(seconds, 3),
        "resumed_from": checkpoint.name if checkpoint else None,
        "step0": facts,
    }


def build(recipe: Recipe, rundir: RunDir) -> tuple[Any, Any, dict[str, Any]]:
    """The trainer, its stop switch, and the step-0 facts, which are filled in when training begins."""
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

    from . import progress, settings, step0
    from .batches import Collator
    from .trainer import Trainer

    set_seed(recipe.seed)
    tokenizer, prepared = models.load_tokenizer(recipe), store.load(rundir)
    model = models.load_model(models.model_dir(recipe), recipe, training_dtype(recipe))
    fixed = recipe.prompt.sequence_len if recipe.prompt.padding == "max_length" else 0
    callbacks = [shown := progress.Progress(rundir, lambda: begin()), stopping := progress.Stopping()]
    if recipe.evaluation.early_stopping:
        early = recipe.evaluation.early_stopping
        callbacks.append(EarlyStoppingCallback(early.patience, early.min_delta))
    split = prepared.split("train")
    trainer = Trainer(
        lengths=split["length"][:],
        model=model,
        args=settings.arguments(recipe, str(rundir.checkpoints)),
        train_dataset=split.select_columns(["input_ids", "labels"]),
        eval_dataset=rows(recipe, prepared) if recipe.evaluation.every_steps else None,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id, fixed),
        peft_config=settings.adapter(recipe.lora, model) if recipe.lora else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if recipe.hardware.precision == "bf16":
        cast_frozen(trainer.model)
    shown.trainer, facts = trainer, dict[str, Any]()

    def begin() -> None:
        facts.update(step0.check(recipe, trainer), threads=torch.get_num_threads(), rows=len(trainer.train_dataset))
        rundir.event("step0", **facts)

    return trainer, stopping, facts


def cast_frozen(model: Any) -> None:
    """Hold frozen weights under adapters in bf16: autocast would cast them in every step, to the same numbers."""
    import torch

    for module in model.modules():
        if hasattr(module, "lora_A") and not any(getattr(module, "use_dora", {}).values()):
            weight = getattr(module.get_base_layer(), "weight", None)  # none where experts share one tensor
            if weight is not None:
                weight.data = weight.data.to(torch.bfloat16)


def rows(recipe: Recipe, prepared: store.Prepared) -> Any:
    """The validation rows that losses are measured on: all, or `max_rows` of them drawn by the recipe's seed."""
    split = prepared.split("validation")
    limit = recipe.evaluation.max_rows
    if limit is None or limit >= len(split):
        return split
    return split.select(sorted(random.Random(recipe.seed).sample(range(len(split)), limit)))


def training_dtype(recipe: Recipe) -> str:
    """fp32 for weights that are trained (16 bits lose small updates) and for fp32 arithmetic; else the recipe's."""
    if recipe.lora is None or recipe.hardware.precision == "fp32":
        return "float32"
    return recipe.model.dtype


def save(recipe: Recipe, trainer: Any, rundir: RunDir) -> None:
    """Write `model/`: the adapter, or the full weights in the recipe's dtype, with the tokenizer."""
    import torch

    model = trainer.model
    if recipe.lora is None:
        model = model.to(getattr(torch, recipe.model.dtype))
    with whole_folder(rundir.model) as folder:
        model.save_pretrained(folder, max_shard_size=recipe.artifacts.max_shard_size)
        trainer.processing_class.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's form with nothing filled in; the package has a card


def newest(checkpoints: Path) -> Path | None:
    """The checkpoint with the highest step."""
    found = [(int(path.name.rpartition("-")[2]), path) for path in checkpoints.glob("checkpoint-*")]
    return max(found)[1] if found else None


def require(folder: Path, command: str) -> Path:
    """`folder`, which an earlier stage leaves. Raises StageError."""
    if not folder.is_dir():
        raise StageError(f"{folder} is not there yet", f"run the {command} stage first")
    return folder
