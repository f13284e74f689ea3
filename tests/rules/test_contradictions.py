"""Each rule fires on what it is for, at its key and with its severity, and lets through what agrees."""

from __future__ import annotations

import pytest

ROWS = "datasets.0.max_rows="
GPU = "hardware={accelerator: gpu, devices: 2"
TPU = "hardware={accelerator: tpu, topology: v3-8}"
SMOLLM = "model.base_model=HuggingFaceTB/SmolLM2-135M"
LARGE = "model.base_model=Qwen/Qwen2.5-7B"
MIXTRAL = "model.base_model=tiny:mixtral"
ALONE = "hardware={accelerator: gpu, zero_stage: 3}"

ERRORS = {
    "length": (["training.max_steps=5"], "training.max_steps"),
    "no length": (["training.num_epochs=null"], "training"),
    "warmup": (["optimizer.warmup_ratio=0.1", "optimizer.warmup_steps=5"], "optimizer.warmup_steps"),
    "warmup ends": (
        ["training={max_steps: 9}", "optimizer.warmup_steps=9"],
        "optimizer.warmup_steps",
    ),
    "warmup of known rows": ([f"{ROWS}100", "optimizer.warmup_steps=99"], "optimizer.warmup_steps"),
    "batch": (
        ["training.effective_batch_size=8", "training.gradient_accumulation_steps=8"],
        "training.effective_batch_size",
    ),
    "batch of another size": (
        ["training.effective_batch_size=8", "training.gradient_accumulation_steps=4"],
        "training.effective_batch_size",
    ),
    "batch divides": (
        ["training.effective_batch_size=9", "training.micro_batch_size=2"],
        "training.effective_batch_size",
    ),
    "min_lr": (["optimizer.min_lr_ratio=0.1", "optimizer.lr_scheduler=constant"], "optimizer.min_lr_ratio"),
    "cycles": (["optimizer.num_cycles=2"], "optimizer.num_cycles"),
    "plateau": (["optimizer.lr_scheduler=reduce_lr_on_plateau"], "optimizer.lr_scheduler"),
    "factor of no plateau": (["optimizer.plateau_factor=0.1"], "optimizer.plateau_factor"),
    "patience of no plateau": (["optimizer.plateau_patience=3"], "optimizer.plateau_patience"),
    "best": (["evaluation.best={}"], "evaluation.best"),
    "early stopping": (["evaluation.early_stopping={}"], "evaluation.early_stopping"),
    "best is saved": (["evaluation={best: {}, every_steps: 4}", "training.save_steps=6"], "training.save_steps"),
    "metrics": (["evaluation.metrics=[json_valid]"], "evaluation.metrics"),
    "shares": (["split={validation: 0.7, test: 0.4}"], "split"),
    "shares of few rows": (["split={validation: 0.7, test: 0.4}", f"{ROWS}9"], "split"),
    "part of a row": (["split.test=1.5"], "split.test"),
    "no rows left": ([f"{ROWS}9", "split.test=8"], "split.test"),
    "validation": (["split.validation=0"], "split.validation"),
    "nothing to train on": (["datasets.0.use_as=validation"], "datasets.0.use_as"),
    "nothing to measure on": (["datasets.0.use_as=train"], "datasets.0.use_as"),
    "flash attention": (["model.attn_implementation=flash_attention_2"], "model.attn_implementation"),
    "liger": (["model.kernels=liger"], "model.kernels"),
    "flash attention in 32 bits": (
        ["model.attn_implementation=flash_attention_2", f"{GPU}, precision: fp32}}"],
        "model.attn_implementation",
    ),
    "flash attention of 32 bits": (
        ["model={base_model: some/model, dtype: float32, attn_implementation: flash_attention_2}", f"{GPU}}}"],
        "model.attn_implementation",
    ),
    "revision": (["model.base_model=tiny:llama", "model.revision=abc"], "model.revision"),
    "fp16": (["hardware={accelerator: cpu, precision: fp16}"], "hardware.precision"),
    "float16": (["model.dtype=float16"], "model.dtype"),
    "float16 on TPU": (["model.dtype=float16", TPU, "prompt.padding=max_length"], "model.dtype"),
    "nf4 on TPU": (["quantization.load=nf4", "lora={}", TPU, "prompt.padding=bucketed"], "quantization.load"),
    "lengths on TPU": ([TPU, "prompt.padding=dynamic"], "prompt.padding"),
    "sdpa in bf16 on TPU": ([TPU, "model.attn_implementation=sdpa"], "model.attn_implementation"),
    "no such slice": (["hardware={accelerator: tpu, topology: v4-9}"], "hardware.topology"),
    "the other runtime": (["hardware={accelerator: tpu, topology: v4-8, runtime: torch_tpu}"], "hardware.runtime"),
    "8 bits on TPU": (["optimizer.name=adamw_8bit", TPU, "prompt.padding=max_length"], "optimizer.name"),
    "parameters elsewhere": ([f"{GPU}, offload: {{parameters: cpu}}}}"], "hardware.offload.parameters"),
    "optimizer elsewhere": (
        [f"{GPU}, zero_stage: 0, offload: {{optimizer: cpu}}}}"],
        "hardware.offload.optimizer",
    ),
    "optimizer on NVMe": ([f"{GPU}, offload: {{optimizer: nvme}}}}"], "hardware.offload.optimizer"),
    "int8 and ZeRO-3": (["quantization.load=int8", "lora={}", f"{GPU}, zero_stage: 3}}"], "quantization.load"),
    "full in 4 bits": (["quantization.load=nf4"], "quantization.load"),
    "no such layer": (["lora.target_modules=[q_proj, query]"], "lora.target_modules.1"),
    "no such layer of Mixtral": ([MIXTRAL, "lora.target_modules=[gate_proj, q_proj]"], "lora.target_modules.0"),
    "head": (["lora.target_modules=[lm_head, q_proj]"], "lora.target_modules.0"),
    "dropout on experts": ([MIXTRAL, "lora.dropout=0.1"], "lora.dropout"),
    "DoRA on a router": ([MIXTRAL, "lora={use_dora: true, target_modules: [gate]}"], "lora.use_dora"),
    "template": (["prompt.template=vicuna"], "prompt.template"),
    "buckets": (["prompt={packing: true, padding: bucketed}"], "prompt.padding"),
    "map": (["datasets.0.type=rows"], "datasets.0.map"),
    "search of the whole": (["search.space={'': [1]}"], 'search.space.""'),
    "search of no metric": (["search={metric: json_valid, space: {seed: [1]}}"], "search.metric"),
    "tiny model": (["model.base_model=tiny:lama"], "model.base_model"),
    "address of a model": (["model.tokenizer=https://huggingface.co/gpt2"], "model.tokenizer"),
    "package without a file": (["distillation.teacher=package:some"], "distillation.teacher"),
    "path without end": ([f"model.base_model=/{'a' * 5000}"], "model.base_model"),
    "pattern": (["datasets.0.redact=[{pattern: '('}]"], "datasets.0.redact.0.pattern"),
    "expression": (["datasets.0.where=a ==="], "datasets.0.where"),
    "group": (["split.group_by=f(host"], "split.group_by"),
    "balance": (["split.balance={by: 'host =='}"], "split.balance.by"),
    "open braces": (["prompt.template='{{ messages'"], "prompt.template"),
    "hub dataset": (["datasets.0.path=hub:alpaca"], "datasets.0.path"),
    "split of a file": (["datasets.0.split=test"], "datasets.0.split"),
    "one metric twice": (
        ["evaluation={generate: {}, metrics: [json_valid, json_valid]}"],
        "evaluation.metrics.1",
    ),
    "flash attention on an old card": (
        [
            "model={base_model: some/model, attn_implementation: flash_attention_2}",
            "hardware={accelerator: gpu, type: v100-16gb, precision: fp16}",
        ],
        "model.attn_implementation",
    ),
    "search of nothing": (["search={}"], "search.space"),
    "search of no key": (["search.space={lr: [1]}"], "search.space.lr"),
    "search of no value": (["search.space={seed: [1, -1]}"], "search.space.seed.1"),
}
WARNINGS = {
    "card": (["hardware={accelerator: gpu, type: h1O0-80gb}"], "hardware.type"),
    "memory of a card": (["hardware={accelerator: gpu, type: a100-800gb}"], "hardware.type"),
    "old card": (["hardware={accelerator: gpu, type: T4}"], "hardware.precision"),
    "high rate": ([LARGE, "optimizer.learning_rate=1e-3"], "optimizer.learning_rate"),
    "high rate of a small model": ([SMOLLM, "optimizer.learning_rate=6e-3"], "optimizer.learning_rate"),
    "high rate of adapters": ([SMOLLM, "lora={}", "optimizer.learning_rate=6e-3"], "optimizer.learning_rate"),
    "high rate of Lion": ([LARGE, "optimizer.name=lion"], "optimizer.learning_rate"),
    "high rate of Adafactor": (
        [SMOLLM, "optimizer={name: adafactor, learning_rate: 0.1}"],
        "optimizer.learning_rate",
    ),
    "low rate": ([SMOLLM, "optimizer={name: sgd, learning_rate: 1e-8}"], "optimizer.learning_rate"),
    "packed": (["prompt.packing=true", "training.micro_batch_size=2"], "training.micro_batch_size"),
    "best is lost": (["evaluation={best: {}, every_steps: 4}", "training.save_steps=8"], "training.save_steps"),
    "stops at worst": (["evaluation={early_stopping: {}, every_steps: 4}"], "evaluation.early_stopping"),
    "patience": (
        ["evaluation={best: {}, early_stopping: {patience: 4}, every_steps: 2}", "training={max_steps: 10}"],
        "training.max_steps",
    ),
    "patience of known rows": (
        ["evaluation={best: {}, early_stopping: {patience: 2}, every_steps: 33}", f"{ROWS}100"],
        "training.num_epochs",
    ),
    "measured once": (["evaluation.every_steps=100", f"{ROWS}100"], "evaluation.every_steps"),
    "saved once": (["training={max_steps: 5, save_steps: 6}"], "training.save_steps"),
    "a TPU newer than torch_xla": (["hardware={accelerator: tpu, topology: tpu7x-8}"], "hardware.topology"),
    "offload on cpu": (
        ["hardware={accelerator: cpu, zero_stage: 2, offload: {optimizer: cpu}}"],
        "hardware.offload.optimizer",
    ),
    "ZeRO-3 alone": ([ALONE], "hardware.zero_stage"),
    "Adafactor and ZeRO": (["optimizer={name: adafactor, learning_rate: 1e-3}", f"{GPU}}}"], "optimizer.name"),
    "remote code": (["model.trust_remote_code=true"], "model.trust_remote_code"),
    "positions": (["prompt.sequence_len=4097"], "prompt.sequence_len"),
    "access": (["model.base_model=meta-llama/Llama-3.1-8B"], "model.base_model"),
    "no teacher": (["distillation={teacher: tiny:mistral, alpha: 0}"], "distillation.alpha"),
    "own teacher": (["distillation.teacher=tiny:llama"], "distillation.teacher"),
}


def test_a_plain_recipe_has_no_findings(check) -> None:
    assert check() == check(running=True) == []


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("running", [True, False])
def test_contradictions_are_errors(name: str, running: bool, check) -> None:
    assignments, pointer = ERRORS[name]
    (problem,) = check(*assignments, running=running)
    assert (problem.pointer, problem.severity) == (pointer, "error")
    assert problem.hint or name in ("part of a row", "shares", "shares of few rows", "search of no value")


@pytest.mark.parametrize("name", WARNINGS)
@pytest.mark.parametrize("running", [True, False])
def test_what_is_likely_wrong_is_a_warning(name: str, running: bool, check) -> None:
    assignments, pointer = WARNINGS[name]
    (problem,) = check(*assignments, running=running)
    assert (problem.pointer, problem.severity) == (pointer, "warning")
    assert problem.hint


@pytest.mark.parametrize(
    "assignments",
    [
        ["training.num_epochs=null", "training.max_steps=5"],
        ["optimizer.warmup_steps=0"],
        ["optimizer.warmup_steps=8", "training={max_steps: 9}"],
        ["optimizer.warmup_steps=98", f"{ROWS}100"],
        ["training.effective_batch_size=8", "training.micro_batch_size=4"],
        ["training.gradient_accumulation_steps=3"],
        ["optimizer.min_lr_ratio=0.1"],
        [
            "optimizer={name: sgd, learning_rate: 1, lr_scheduler: reduce_lr_on_plateau, min_lr_ratio: 0.1}",
            "optimizer.plateau_factor=0.1",
            "optimizer.plateau_patience=0",
            "evaluation.every_steps=2",
        ],
        ["optimizer={name: sgd, learning_rate: 1, num_cycles: 2, lr_scheduler: cosine_with_restarts}"],
        ["evaluation={best: {}, early_stopping: {}, every_steps: 4, generate: {}, metrics: [json_valid]}"],
        ["evaluation={best: {}, every_steps: 4}", "training.save_steps=4"],
        ["evaluation={best: {}, every_steps: 4, early_stopping: {patience: 1}}", "training={max_steps: 9}"],
        ["evaluation.every_steps=99", "training.save_steps=99", f"{ROWS}100"],
        ["evaluation.every_steps=8", "training.save_steps=16"],
        ["split={validation: 200, test: 0.9}"],
        ["split={validation: 1, test: 1}", f"{ROWS}3"],
        ["datasets=[{path: rows.jsonl, type: text, use_as: validation}, {path: '*.jsonl', type: text, use_as: train}]"],
        ["prompt.template='{{ messages }}'"],
        ["prompt.template='{% for m in messages %}{% endfor %}'"],
        ["prompt.packing=true", f"{GPU}}}", "training.micro_batch_size=2"],
        ["prompt.sequence_len=4096"],
        ["datasets.0={path: rows.jsonl, type: rows, map: {prompt: a, completion: b}}"],
        [LARGE, "optimizer.learning_rate=5e-4"],
        [SMOLLM, "optimizer.learning_rate=1e-3"],
        [SMOLLM, "optimizer={name: sgd, learning_rate: 10}"],
        ["optimizer={name: lion, learning_rate: 1}"],
        ["model={base_model: some/model, attn_implementation: flash_attention_2}", f"{GPU}}}"],
        ["model={base_model: some/model}", "lora={dropout: 0.5, target_modules: [anything]}"],
        [MIXTRAL, "lora={dropout: 0.5, use_dora: true, target_modules: attention}"],
        ["lora={dropout: 0.5, use_dora: true, target_modules: [q_proj, down_proj]}"],
        ["quantization.load=nf4", "lora={}", f"{GPU}, zero_stage: 3}}"],
        ["quantization.load=int8", "lora={}", f"{GPU}, zero_stage: auto}}"],
        ["prompt.packing=true", TPU],
        ["model.attn_implementation=sdpa", f"{GPU}, zero_stage: auto, offload: {{optimizer: nvme}}}}"],
        [f"{GPU}, zero_stage: 3, offload: {{optimizer: nvme, parameters: cpu}}}}"],
        ["hardware={accelerator: gpu, zero_stage: 3, offload: {optimizer: cpu}}"],
        ["optimizer={name: adafactor, learning_rate: 1e-3}", f"{GPU}, zero_stage: 0}}"],
        ["distillation.teacher=tiny:mistral"],
        ["model={base_model: some/model, tokenizer: owner/name}", "distillation.teacher=other/model"],
        ["hardware={accelerator: gpu, type: t4-16gb, precision: fp16}"],
        ["hardware={accelerator: gpu, type: H100}"],
        ["hardware={accelerator: gpu, type: gaudi3-128gb}"],
        ["datasets=[{path: 'hub:owner/name', type: text, split: test, config: main, revision: abc}]"],
        ["datasets.0={path: rows.jsonl, type: messages, where: \"a.b is not none and 'x}' in c\", route: {when: a}}"],
        ["split={group_by: masked_text, stratify_by: a.b, balance: {by: a ~ b}}"],
        ["evaluation={generate: {}, metrics: [{field: a, metric: mae}, {field: a, metric: accuracy}]}"],
        [
            "search={metric: a.mae, space: {seed: [1]}}",
            "evaluation={generate: {}, metrics: [json_valid, {field: a, metric: mae}]}",
        ],
        ["search.space={lora: [null, {r: 8}], seed: [1], optimizer.betas: [[0.9, 0.99]], datasets.0.weight: [2]}"],
    ],
)
def test_what_agrees_is_let_through(assignments: list[str], check) -> None:
    assert check(*assignments, running=True) == []
