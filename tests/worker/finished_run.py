"""A run directory as the stages before packaging leave it: realistic records, and any model that is handed in."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from sysml_run import document, resolve
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, write_json, write_text

SEVERITIES = ("info", "low", "medium", "high", "critical")
STARTED = "2026-11-20T10:0{}:00+00:00"

SECTIONS: dict[str, Any] = {
    "version": 1,
    "name": "quickstart",
    "description": "Severity and risk score of sys-scan findings, on one processor",
    "model": {"base_model": "tiny:llama", "dtype": "float32"},
    "datasets": [{"path": "findings.tar.gz", "type": "sysscan.finding"}],
    "split": {"validation": 0.2, "stratify_by": "severity", "group_by": "masked_text"},
    "prompt": {"sequence_len": 256},
    "lora": {"r": 16, "alpha": 32},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "warmup_ratio": 0.1},
    "training": {"num_epochs": 2, "micro_batch_size": 4, "effective_batch_size": 8},
    "evaluation": {
        "every_steps": 20,
        "generate": {"rows": 32, "max_new_tokens": 8},
        "metrics": ["json_valid", {"field": "severity", "metric": "accuracy"}],
    },
    "hardware": {"accelerator": "cpu", "precision": "fp32"},
}


def make(folder: Path, model: Path | None = None, **sections: Any) -> tuple[Recipe, RunDir]:
    """Write the run, with `model` copied in; `sections` replace those of the recipe, None removes one."""
    written = {key: value for key, value in (SECTIONS | sections).items() if value is not None}
    (folder / "here").mkdir(parents=True)
    (folder / "here" / "findings.tar.gz").write_bytes(b"rows")
    source = document.parse(json.dumps(written, indent=1), str(folder / "here" / "quickstart.yaml"))
    resolved = resolve.resolve(source)
    rundir = RunDir(folder / "run")
    values, sources = resolved.values, dict(resolved.sources)
    values["training"]["gradient_accumulation_steps"] = 2
    sources["training.gradient_accumulation_steps"] = "derived: effective_batch_size 8 / 4 rows a step"
    write_json(rundir.recipe, {"values": values, "sources": sources})
    write_text(rundir / "recipe.yaml", source.text)
    write_text(folder / "here" / "quickstart.yaml", source.text)
    write_json(rundir / "plan.json", {"recipe": str(folder / "here" / "quickstart.yaml")})
    recipe = resolve.build(values)
    records(rundir, recipe)
    outputs(rundir)
    if model is not None:
        shutil.copytree(model, rundir.merged if recipe.lora else rundir.model)
    return recipe, rundir


def records(rundir: RunDir, recipe: Recipe) -> None:
    data = {"name": "findings.tar.gz", "size": 48213, "sha256": "ab" * 32}
    write_json(rundir.record("prepare"), {"started": STARTED.format(0), "seconds": 3.21, "files": [data]})
    step0 = {
        "optimizer": "torch.optim.adamw.AdamW",
        "trainable_parameters": 4_884_480,
        "optimizer_parameters": 4_884_480,
        "total_parameters": 139_399_488,
        "trainable_dtypes": ["torch.float32"],
        "learning_rate": 0.001,
        "steps": 86,
        "first_learning_rate": 0.0,
        "peak_learning_rate": 0.001,
        "last_learning_rate": 1.9e-06,
        "batch": [4, 2, 1],
        "precision": "bf16",
        "attention": "sdpa",
        "lora_modules": 210,
        "threads": 2,
        "rows": 346,
    }
    base = {"base_model": recipe.model.base_model, "kind": "gguf", "license": "apache-2.0", "languages": ["en"]}
    train = {
        "base": base | {"sha256": "cd" * 32, "name": "Smollm2 135M 8k Lc100K Mix1 Ep2"},
        "steps": 86,
        "tokens": 81_656,
        "tokens_per_second": 571.2,
        "training_seconds": 142.95,
        "step0": step0,
        "versions": {"python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0"},
    }
    write_json(rundir.record("train"), {"started": STARTED.format(1), "seconds": 151.4, **train})
    write_json(rundir.record("evaluate"), {"started": STARTED.format(4), "seconds": 38.9, "rows": 86, "generated": 32})
    if recipe.lora:
        write_json(rundir.record("merge"), {"started": STARTED.format(5), "seconds": 11.0})


def outputs(rundir: RunDir) -> None:
    write_json(rundir.data / "report.json", data_report())
    write_text(rundir.metrics, "".join(json.dumps(line) + "\n" for line in metrics()))
    before = {"loss": 1.7743, "json_valid": 0.0, "severity.accuracy": 0.0, "severity.majority": 0.4651}
    after = {"loss": 0.1131, "json_valid": 1.0, "severity.accuracy": 0.8125, "severity.majority": 0.4651}
    before |= {"severity.f1_macro": 0.0, "risk_score.mae": None}  # type: ignore[dict-item]
    after |= {"severity.f1_macro": 0.7437, "risk_score.mae": 6.03}
    merged = {"max_logit_difference": 3.1e-05, "tolerance": 0.01, "top_token_agreement": 1.0, "rows": 16}
    write_json(rundir.evaluation, {"rows": 86, "generated": 32, "before": before, "after": after, "merged": merged})
    lines(rundir / "generations.jsonl", [generation(number) for number in range(32)])
    lines(rundir / "worst_rows.jsonl", [generation(number, 2.5 - number / 20) for number in range(20)])


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def metrics() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(2, 88, 2):
        rate = 1e-3 * (step / 9 if step < 9 else 0.5 * (1 + math.cos(math.pi * (step - 9) / 77)))
        loss = 0.1 + 1.8 * math.exp(-step / 9) + 0.02 * math.sin(step * 1.7)
        facts = {"loss": loss, "learning_rate": rate, "grad_norm": 0.8, "tokens_per_second": 560 + 9 * math.sin(step)}
        found.append({"step": step, "epoch": round(step / 43, 4), **facts})
        if step % 20 == 0:
            found.append({"step": step, "epoch": round(step / 43, 4), "eval_loss": 0.11 + 1.7 * math.exp(-step / 9)})
    return found


def generation(number: int, loss: float = 0.08) -> dict[str, Any]:
    severity = SEVERITIES[number % 5]
    finding = {"title": f"Port {8000 + number} is open", "category": "network", "metadata": {"pid": str(900 + number)}}
    turns = "<|im_start|>system\nYou are a local security analyst.<|im_end|>\n<|im_start|>user\nAssess this finding. "
    prompt = (
        f"{turns}Answer with JSON: severity and risk_score.\n{json.dumps(finding)}<|im_end|>\n<|im_start|>assistant\n"
    )
    expected = json.dumps({"severity": severity, "risk_score": number % 5 * 20})
    before = (
        "This finding describes a network port that is open on the host. It is recommended to" if number < 32 else None
    )
    after = json.dumps({"severity": severity if number % 4 else "high", "risk_score": number % 5 * 20})
    losses = {"before_loss": 1.8, "after_loss": round(loss, 4)}
    return {"id": f"findings.tar.gz:b/batch_1.json:{number}", "prompt": prompt, "expected": expected} | {
        "before": before,
        "after": after,
        **losses,
    }


def data_report() -> dict[str, Any]:
    def split(rows: int) -> dict[str, Any]:
        tokens = {"p50": 118, "p95": 161, "max": 203, "total": rows * 120}
        return {"rows": rows, "tokens": tokens, "truncated": 0, "loss_tokens": rows * 21, "answer_share": 0.17}

    edges = list(range(0, 216, 9))
    shape = [math.exp(-(((edge - 115) / 28) ** 2)) for edge in edges[:-1]]
    hexed = {"exact": 0, "exact_share": 0.0, "masked": 0, "masked_share": 0.0}
    return {
        "rows": {"read": 451, "kept": 432, "dropped": {"where": 12, "not_a_row": 4, "too_long": 3}},
        "files": [{"path": "findings.tar.gz", "member": "b/batch_1.json", "rows": 451}],
        "splits": {"train": split(346), "validation": split(86), "test": split(0)},
        "lengths": {
            name: {"edges": edges, "counts": [round(rows / 6.2 * height) for height in shape]}
            for name, rows in (("train", 346), ("validation", 86), ("test", 0))
        },
        "duplicates": {"exact": 3, "masked": 41},
        "template": {"name": "mistral v3", "origin": "sysml-run's own mistral.jinja"},
        "leakage": {
            "validation": dict(hexed),
            "test": dict(hexed),
            "random_split": {"validation": hexed | {"masked": 70}, "test": dict(hexed)},
        },
        "balance": {
            "severity": {
                name: {"train": train, "validation": train // 4, "test": 0}
                for name, train in zip(SEVERITIES, (161, 74, 52, 38, 21), strict=True)
            }
        },
        "warnings": [],
        "example": {"id": "findings.tar.gz:b/batch_1.json:0", "prompt": "PRIVATE ROW", "completion": "{}", "end": "x"},
    }
