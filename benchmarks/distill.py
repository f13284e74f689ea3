"""Whether a small model learns more from a teacher and the labels than from the labels alone, at equal steps.

The teacher is the model of a finished quickstart run, merged; the students are small random Llamas with its tokenizer,
trained by the quickstart's recipe on the same rows, all weights, once without and once with the teacher. Its
predictions of training rows alone are used, and both losses are of labels alone, on validation rows that neither was
trained on.

    python benchmarks/distill.py --teacher runs/quickstart/ID        (without it a quickstart is run first)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "quickstart.yaml"
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SHARED = ("seed", "split", "datasets")  # of both recipes, so that the teacher saw no validation row
ARMS = {"labels": None, "teacher and labels": "{{teacher: {teacher}, temperature: {temperature}, alpha: {alpha}}}"}


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory(prefix="distill-") as name:
        folder = Path(name)
        teacher = options.teacher or quickstart(folder)
        found = {}
        for seed in range(options.students):
            student(teacher / "merged", folder / f"student-{seed}", seed)
            for arm in ARMS:
                found[seed, arm] = trained(folder, f"student-{seed}", arm, teacher, options)
                print(f"student {seed}, {arm}: {found[seed, arm]}", flush=True)
    print(table(found, json.loads((teacher / "evaluation.json").read_text())["after"]))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=lambda text: Path(text).absolute(), help="a finished run of the quickstart")
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--alpha", type=float, default=0.5)
    return parser.parse_args()


def sysml_run(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runner")}
    subprocess.run([sys.executable, "-m", "sysml_run.cli", *arguments], check=True, env=environment, stdout=sys.stderr)


def quickstart(folder: Path) -> Path:
    sysml_run(str(RECIPE), "--runs", str(folder / "teacher"), "--until", "merge")
    return only(folder / "teacher" / "quickstart")


def student(teacher: Path, folder: Path, seed: int) -> None:
    """A random model with the teacher's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True, **SIZES)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in teacher.glob("*token*"):
        shutil.copy(file, folder)
    for file in teacher.glob("*.jinja"):
        shutil.copy(file, folder)


def trained(folder: Path, name: str, arm: str, teacher: Path, options: argparse.Namespace) -> dict[str, float]:
    """Loss and scores on validation rows of the student trained this way."""
    runs = folder / f"{name}-{arm.replace(' ', '-')}"
    section = ARMS[arm]
    chosen = {
        "model": f"{{base_model: {folder / name}, dtype: float32}}",
        "lora": "null",
        "hardware": "{accelerator: cpu, precision: fp32, threads: 1}",
        "optimizer.learning_rate": "1e-3",
        "training": f"{{max_steps: {options.steps}, micro_batch_size: 8, logging_steps: 20, keep_checkpoints: 1}}",
        "distillation": section.format(teacher=teacher / "merged", **vars_of(options)) if section else "null",
    }
    given = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    sysml_run(str(RECIPE), "--runs", str(runs), "--until", "evaluate", *given)
    run = only(runs / "quickstart")
    same(teacher, run)
    after = json.loads((run / "evaluation.json").read_text())["after"]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = metrics[-1].get("cross_entropy", metrics[-1]["loss"])
    shutil.rmtree(runs)
    return {"loss": after["loss"], "accuracy": after["severity.accuracy"], "training_loss": last}


def vars_of(options: argparse.Namespace) -> dict[str, float]:
    return {"temperature": options.temperature, "alpha": options.alpha}


def same(teacher: Path, run: Path) -> None:
    """Refuse a teacher that was trained on other rows, of which some may be validation rows here."""
    theirs, ours = (json.loads((each / "recipe.json").read_text())["values"] for each in (teacher, run))
    for key in SHARED:
        without = [without_path(each[key]) for each in (theirs, ours)]
        assert without[0] == without[1], f"the teacher's {key} is another"
    files = [json.loads((each / "records/prepare.json").read_text())["files"] for each in (teacher, run)]
    assert files[0] == files[1], "the teacher's rows are others"


def without_path(value: Any) -> Any:
    return [{**each, "path": None} for each in value] if isinstance(value, list) else value


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def table(found: dict[tuple[int, str], dict[str, float]], teacher: dict[str, float]) -> str:
    """Markdown: one line a student, their means, and the teacher's own figures."""
    lines = ["| student | " + " | ".join(f"loss, {arm} | severity, {arm}" for arm in ARMS) + " |"]
    lines.append("| --- |" + " ---: |" * 2 * len(ARMS))
    seeds = sorted({seed for seed, _ in found})
    for seed in seeds:
        lines.append(f"| {seed} | " + " | ".join(cells(found[seed, arm]) for arm in ARMS) + " |")
    means = {arm: {key: mean(found, seeds, arm, key) for key in ("loss", "accuracy")} for arm in ARMS}
    lines.append("| mean | " + " | ".join(cells(means[arm]) for arm in ARMS) + " |")
    own = f"The teacher's own: loss {teacher['loss']:.4f}, severity {100 * teacher['severity.accuracy']:.1f} %."
    return "\n".join([*lines, "", own])


def cells(figures: dict[str, float]) -> str:
    return f"{figures['loss']:.4f} | {100 * figures['accuracy']:.1f} %"


def mean(found: dict[tuple[int, str], dict[str, float]], seeds: list[int], arm: str, key: str) -> float:
    return statistics.mean(found[seed, arm][key] for seed in seeds)


if __name__ == "__main__":
    main()
