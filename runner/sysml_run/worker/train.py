"""The train stage: the base model, our rows and the recipe's settings in TRL's SFTTrainer."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sysml_run import manifest, teachers
from sysml_run.errors import StageError
from sysml_run.prepared import Prepared
from sysml_run.recipe import Prompt, Recipe
from sysml_run.rundir import RunDir, whole_folder, write_json

from . import adopt, fused, kbit, memory, models, ranks, taught, view, zero
from .data import store
from .xla import device as xla

SHOWN = 3  # rows of training that the report prints


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Train, or go on from the newest checkpoint, and leave `model/`. Raises KeyboardInterrupt when asked to stop."""
    if recipe.model.trained is not None:
        return adopt.run(recipe, rundir)
    trainer, stopping, facts = build(recipe, rundir)
    checkpoint = newest(rundir.checkpoints)
    if xla.wanted(recipe):
        trainer.place(checkpoint)
    elif checkpoint:
        zero.refuse_other_size(checkpoint)
    if checkpoint and ranks.first():
        print(f"train: going on from {checkpoint.name}", flush=True)
    expected, clock = memory.predicted(recipe), time.monotonic()
    with memory.told(rundir, trainer):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if ranks.any_of(stopping.asked):
        raise KeyboardInterrupt
    seconds, tokens = time.monotonic() - clock, int(ranks.total(trainer.tokens)[0])
    save(recipe, trainer, rundir)
    return {
        "base": models.base_facts(recipe),
        "versions": manifest.versions(),
        "weights_in_training": training_dtype(recipe),
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1),
        "training_seconds": round(seconds, 3),
        "resumed_from": checkpoint.name if checkpoint else None,
        "step0": facts,
        "memory": memory.record(trainer, expected),
        **trainer.record(),
    }


def build(recipe: Recipe, rundir: RunDir) -> tuple[Any, Any, dict[str, Any]]:
    """The trainer, its stop switch, and the step-0 facts, which are filled in when training begins."""
    import torch
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

    from . import plateau, progress, settings, step0, tracking, watch
    from .batches import Collator

    set_seed(recipe.seed)
    models.model_dir(recipe)  # a model that has to be made is made by one process, before it knows of the others
    # ZeRO-3 shards a model that is loaded after this
    arguments = settings.arguments(recipe, str(rundir.checkpoints), tracking.named(rundir))
    ranks.agree(manifest.versions())
    tokenizer, prepared = models.load_tokenizer(recipe), store.load(rundir)
    model = models.load_base(recipe, training_dtype(recipe), training=True)
    fused.apply(recipe, model)
    callbacks = [shown := progress.Progress(rundir, lambda: begin()), stopping := progress.Stopping()]
    callbacks += [*plateau.wanted(recipe.optimizer), *tracking.callbacks(recipe, rundir)]
    if recipe.evaluation.early_stopping:
        early = recipe.evaluation.early_stopping
        callbacks.append(EarlyStoppingCallback(early.patience, early.min_delta))
    split = prepared.split("train")
    if ranks.first():
        write_json(rundir.data / view.SHOWN, view.shown_rows(tokenizer, split, SHOWN))
    fed, lengths = batched(recipe, prepared)
    trainer = trainer_for(recipe, rundir)(
        lengths=lengths,
        model=model,
        args=arguments,
        train_dataset=fed,
        eval_dataset=rows(recipe, prepared) if recipe.evaluation.every_steps else None,
        processing_class=tokenizer,
        data_collator=Collator(
            tokenizer.pad_token_id,
            *padded_lengths(recipe.prompt, lengths),
            flat=recipe.model.attn_implementation == "flash_attention_2",
        ),
        peft_config=settings.adapter(recipe.lora, model) if recipe.lora else None,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if recipe.quantization.load:
        kbit.widen_adapters(trainer.model)
    if recipe.hardware.precision == "bf16" and not trainer.is_deepspeed_enabled:
        cast_frozen(trainer.model)
    shown.trainer, facts = trainer, dict[str, Any]()
    if not xla.wanted(recipe):  # there nothing is read back in a step; what is logged is looked at
        scaled, most = recipe.hardware.precision == "fp16", recipe.training.max_loss_spike
        trainer.watch = watch.Watch(rundir, split, most, scaled=scaled)

    def begin() -> None:
        facts.update(step0.check(recipe, trainer), threads=torch.get_num_threads(), rows=len(trainer.train_dataset))
        if ranks.first():
            rundir.event("step0", **facts)

    return trainer, stopping, facts


def batched(recipe: Recipe, prepared: Prepared) -> tuple[Any, list[int]]:
    """The training rows, in the columns that batches are made of, and their lengths."""
    fed, columns = prepared.split("train"), ["input_ids", "labels"]
    if recipe.prompt.packing:
        fed, columns = prepared.split("packed"), [*columns, "seq_lengths"]
    lengths = fed["length"][:]
    if teachers.wanted(recipe):
        from . import student

        fed, columns = student.numbered(fed), [*columns, *student.COLUMNS]
    return fed.select_columns(columns), lengths


def trainer_for(recipe: Recipe, rundir: RunDir) -> Any:
    """What makes the trainer for the recipe's hardware and teacher."""
    if xla.wanted(recipe):
        from .xla.trainer import Trainer as OnXla

        return partial(OnXla, recipe=recipe)
    if teachers.wanted(recipe):
        from .student import Student

        return partial(Student, recipe=recipe, taught=taught.load(rundir))
    from .trainer import Trainer

    return Trainer


def padded_lengths(prompt: Prompt, lengths: Sequence[int]) -> list[int]:
    """The lengths that batches of rows of these lengths are padded to; none where each is padded to its longest row."""
    from .batches import buckets

    if prompt.padding == "bucketed":
        return buckets(lengths, prompt.sequence_len)
    return [prompt.sequence_len] if prompt.padding == "max_length" else []


def cast_frozen(model: Any) -> None:
    """Hold frozen weights under adapters in bf16: autocast would cast them in every step, to the same numbers.

    Quantized ones are left as they are; they hold codes and not numbers.
    """
    import torch

    for module in model.modules():
        if hasattr(module, "lora_A") and not any(getattr(module, "use_dora", {}).values()):
            base = module.get_base_layer()
            weight = getattr(base, "weight", None)  # none where experts share one tensor
            if weight is not None and not kbit.quantized(base):
                weight.data = weight.data.to(torch.bfloat16)


def rows(recipe: Recipe, prepared: Prepared, name: str = "validation") -> Any:
    """The held-out rows that losses are measured on: all, or `max_rows` of them drawn by the recipe's seed."""
    split = prepared.split(name)
    limit = recipe.evaluation.max_rows
    if limit is None or limit >= len(split):
        return split
    return split.select(sorted(random.Random(recipe.seed).sample(range(len(split)), limit)))


def training_dtype(recipe: Recipe) -> str:
    """fp32 for weights that are trained (16 bits lose small updates) and for fp32 arithmetic; else the recipe's.

    On cards DeepSpeed computes in 16-bit weights and trains its own fp32 copy of them; it wants one dtype in all.
    """
    if getattr(recipe.hardware, "zero_stage", None) is not None:
        dtypes = {"bf16": "bfloat16", "fp16": "float16"} if recipe.hardware.accelerator == "gpu" else {}
        return dtypes.get(recipe.hardware.precision, "float32")
    if recipe.lora is None or recipe.hardware.precision == "fp32":
        return "float32"
    return recipe.model.dtype


def save(recipe: Recipe, trainer: Any, rundir: RunDir) -> None:
    """Write `model/`: the adapter, or the full weights in the recipe's dtype, with the tokenizer.

    Several processes gather what each holds a share of, and the first one writes it.
    """
    import torch

    if xla.wanted(recipe):
        trainer.publish(rundir.model)
        return
    model, dtype = trainer.model, getattr(torch, recipe.model.dtype)
    gathered = zero.state(trainer) if trainer.is_deepspeed_enabled else None
    if not ranks.first():
        return
    if recipe.lora is None and gathered:
        gathered = {name: tensor.to(dtype) for name, tensor in gathered.items()}
    elif recipe.lora is None:
        model = model.to(dtype)
    with whole_folder(rundir.model) as folder:
        model.save_pretrained(folder, state_dict=gathered, max_shard_size=recipe.artifacts.max_shard_size)
        if gathered is not None:
            zero.name_dtype(folder, recipe)
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
