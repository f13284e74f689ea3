"""Tokens a second of the train stage against a bare loop over the same rows, model and adapter, in the same process.

The bare loop is what one writes by hand: rows padded on the right, the model's own loss over all positions, PEFT LoRA,
AdamW, bf16 autocast on fp32 weights. Each side makes STEPS steps, in turn, ROUNDS times; the first step of each round
is not counted. Padding does not count as tokens on either side.

    sysml-run plan RECIPE --write /tmp/speed && python benchmarks/training_speed.py /tmp/speed
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sysml_run.resolve import build
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import __main__ as worker
from sysml_run.worker import models, settings, train
from sysml_run.worker.data import store

STEPS, ROUNDS = 5, 3


def ours(recipe: Any, rundir: RunDir) -> Callable[[list[dict[str, Any]]], int]:
    """One optimizer step of the stage's own trainer."""
    trainer, _, _ = train.build(recipe, rundir)
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model.train(), trainer.optimizer)

    def step(rows: list[dict[str, Any]]) -> int:
        batch, before = trainer.data_collator(rows), trainer.tokens
        trainer.training_step(model, batch, num_items_in_batch=(batch["labels"] != -100).sum())
        trainer.accelerator.clip_grad_norm_(model.parameters(), recipe.training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return int(trainer.tokens - before)

    return step


def bare(recipe: Any) -> Callable[[list[dict[str, Any]]], int]:
    """One step of a loop written by hand."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq

    tokenizer = models.load_tokenizer(recipe)
    base = AutoModelForCausalLM.from_pretrained(models.model_dir(recipe), dtype=torch.float32)
    model = get_peft_model(base, settings.adapter(recipe.lora, base)).train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    collate = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)

    def step(rows: list[dict[str, Any]]) -> int:
        batch = collate([{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return int(batch["attention_mask"].sum())

    return step


def speed(step: Callable[[list[dict[str, Any]]], int], batches: Iterator[list[dict[str, Any]]]) -> float:
    step(next(batches))
    clock = time.perf_counter()
    tokens = sum(step(next(batches)) for _ in range(STEPS))
    return tokens / (time.perf_counter() - clock)


def main(folder: str) -> None:
    worker.quiet()
    rundir = RunDir(Path(folder))
    recipe = build(read_json(rundir.recipe)["values"])
    worker.run_stage("prepare", recipe, rundir)
    rows = store.load(rundir).split("train").select_columns(["input_ids", "labels"])
    size = recipe.training.micro_batch_size

    def batches() -> Iterator[list[dict[str, Any]]]:
        while True:
            for start in range(0, len(rows) - size + 1, size):
                yield [rows[number] for number in range(start, start + size)]

    one, other, left, right = ours(recipe, rundir), bare(recipe), batches(), batches()
    pairs = [(speed(one, left), speed(other, right)) for _ in range(ROUNDS)]
    for here, there in pairs:
        print(f"train stage {here:.0f} tokens/s, bare loop {there:.0f} tokens/s, ratio {here / there:.2f}")
    print(f"median ratio {statistics.median(here / there for here, there in pairs):.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
