"""Tokens a second, peak memory and use of the cards of a recipe's training, against plain TRL with the same settings.

Both train in processes that the recipe's own accelerate file starts, one after the other, on the same tokens and
labels, model folder, adapter, optimizer, precision, ZeRO stage and number of steps; TRL computes its own loss and
batches in its own order. The first logged step is not counted. A row goes into benchmarks/results.

    python benchmarks/gpu.py recipes/quickstart.yaml --hardware gpu:1xl4-24gb --set training.max_steps=50 \\
        --set training.num_epochs=null --set training.logging_steps=1 --set evaluation.every_steps=null
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
HEAD = """\
# Training on cards, against plain TRL

Written by `benchmarks/gpu.py`; tokens are those that are no padding, the median of the logged steps after the first.

| day | recipe | hardware | attention, kernels | ours tok/s | TRL tok/s | ratio | peak GB | TRL's | use % | TRL's |
| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def main(arguments: Sequence[str]) -> None:
    """Measure both and add the row."""
    with tempfile.TemporaryDirectory(prefix="sysml-run-gpu-") as folder:
        run = Path(folder) / "run"
        subprocess.run([sys.executable, "-m", "sysml_run.cli", "plan", *arguments, "--write", str(run)], check=True)
        launches = {each["stage"]: each for each in json.loads((run / "plan.json").read_text())["launch"]}
        start(launches["prepare"]["argv"], launches["prepare"]["env"])
        with watched() as ours:
            start(launches["train"]["argv"], launches["train"]["env"])
        argv = launches["train"]["argv"]
        plain = [*argv[: argv.index("-m")], str(Path(__file__).resolve()), "--plain", str(run)]
        with watched() as theirs:
            start(plain, launches["train"]["env"])
        row = written(run, mean(ours), mean(theirs))
    file = RESULTS / "gpu.md"
    file.write_text((file.read_text() if file.is_file() else HEAD) + row)
    print(row)


def start(argv: Sequence[str], env: dict[str, str]) -> None:
    subprocess.run(argv, env={**os.environ, **env}, check=True)


def written(run: Path, ours: str, theirs: str) -> str:
    record, trl = (json.loads((run / name).read_text()) for name in ("records/train.json", "trl.json"))
    recipe = json.loads((run / "recipe.json").read_text())["values"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speed = statistics.median([line["tokens_per_second"] for line in lines if "loss" in line][1:])
    hardware, facts = recipe["hardware"], record["step0"]
    where = f"{hardware.get('nodes', 1)}x{hardware['devices']}x{hardware.get('type') or hardware['accelerator']}"
    cells = [
        f"{datetime.now(UTC):%Y-%m-%d}",
        recipe["name"],
        f"{where}, ZeRO {hardware['zero_stage']}, {hardware['precision']}",
        f"{facts['attention']}, {facts['kernels']}",
        *(f"{speed:.0f}", f"{trl['speed']:.0f}", f"{speed / trl['speed']:.2f}"),
        *(f"{peak / 1e9:.1f}" for peak in (record.get("peak_card_bytes", 0), trl["peak"])),
        *(ours, theirs),
    ]
    return f"| {' | '.join(cells)} |\n"


def mean(uses: list[float]) -> str:
    return f"{statistics.fmean(uses):.0f}" if uses else "-"


@contextmanager
def watched() -> Iterator[list[float]]:
    """The share of time in which the cards were at work, a sample a second, in percent; from start to end."""
    uses, over = list[float](), threading.Event()
    question = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def look() -> None:
        while not over.wait(1):
            try:
                said = subprocess.run(question, capture_output=True, text=True, check=True).stdout.split()
            except (OSError, subprocess.CalledProcessError):
                return
            uses.append(statistics.fmean(map(float, said)))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield uses
    finally:
        over.set()
        watcher.join()


def plain(run: Path) -> None:
    """TRL's SFTTrainer as one writes it, with the recipe's settings."""
    import time

    import torch
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from sysml_run.resolve import build
    from sysml_run.rundir import RunDir, read_json
    from sysml_run.worker import models, settings, train
    from sysml_run.worker.data import store

    recipe = build(read_json(run / "recipe.json")["values"])
    training, on_card = recipe.training, recipe.hardware.accelerator == "gpu"
    seen: list[tuple[float, int]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "num_tokens" in logs:
                seen.append((time.monotonic(), int(logs["num_tokens"])))

    arguments = SFTConfig(
        output_dir=str(run / "trl"),
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        max_steps=json.loads((run / "records/train.json").read_text())["steps"],
        max_grad_norm=training.max_grad_norm,
        activation_checkpointing=training.gradient_checkpointing,
        **settings.optimizer(recipe.optimizer, fused=on_card),
        **settings.schedule(recipe.optimizer),
        bf16=recipe.hardware.precision == "bf16",
        fp16=recipe.hardware.precision == "fp16",
        use_cpu=not on_card,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        max_length=None,
        seed=recipe.seed,
    )
    model = models.load_base(recipe, train.training_dtype(recipe))
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=store.load(RunDir(run)).split("train").select_columns(["input_ids", "labels"]),
        processing_class=models.load_tokenizer(recipe),
        peft_config=settings.adapter(recipe.lora, model) if recipe.lora else None,
        callbacks=[Clock()],
    )
    trainer.train()
    speeds = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in itertools.pairwise(seen)]
    peak = torch.cuda.max_memory_allocated() if on_card else 0
    if trainer.is_world_process_zero():
        (run / "trl.json").write_text(json.dumps({"speed": statistics.median(speeds), "peak": peak}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        plain(Path(sys.argv[2]))
    else:
        main(sys.argv[1:])
