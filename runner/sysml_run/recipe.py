"""The resolved recipe as frozen dataclasses: made by tools/make_recipe_types.py from the schemas, never edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Model:
    base_model: str
    tokenizer: str | None
    trained: str | None
    revision: str | None
    dtype: Literal["bfloat16", "float16", "float32"]
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    kernels: Literal["auto", "torch", "liger"]
    trust_remote_code: bool


@dataclass(frozen=True, slots=True)
class Route:
    when: str
    take: Literal["match", "rest"]


@dataclass(frozen=True, slots=True)
class Redaction:
    pattern: str
    replace: str


@dataclass(frozen=True, slots=True)
class DatasetMap:
    system: str | None
    prompt: str | None
    completion: str | None


@dataclass(frozen=True, slots=True)
class Dataset:
    path: str
    type: Literal[
        "sysscan.finding",
        "sysscan.correlation",
        "sysscan.report",
        "sysscan.document",
        "alpaca",
        "sharegpt",
        "messages",
        "prompt_completion",
        "text",
        "tools",
        "preference",
        "rows",
    ]
    where: str | None
    route: Route | None
    redact: tuple[Redaction, ...]
    map: DatasetMap
    weight: float
    max_rows: int | None
    use_as: Literal["auto", "train", "validation", "test"]
    config: str | None
    split: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class Balance:
    by: str
    max_ratio: float


@dataclass(frozen=True, slots=True)
class Split:
    validation: float
    test: float
    stratify_by: str | None
    group_by: str | None
    dedupe: Literal["none", "exact", "masked"]
    balance: Balance | None


@dataclass(frozen=True, slots=True)
class Prompt:
    template: str
    sequence_len: int
    train_on: Literal["completion", "assistant", "all"]
    truncation: Literal["left", "right", "drop", "error"]
    packing: bool
    padding: Literal["dynamic", "bucketed", "max_length"]


@dataclass(frozen=True, slots=True)
class Lora:
    r: int
    alpha: float
    dropout: float
    target_modules: Literal["all-linear", "attention"] | tuple[str, ...]
    use_rslora: bool
    use_dora: bool


@dataclass(frozen=True, slots=True)
class AdamW:
    name: Literal["adamw"]
    learning_rate: float
    weight_decay: float
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "inverse_sqrt", "reduce_lr_on_plateau"
    ]
    warmup_ratio: float | None
    warmup_steps: int | None
    min_lr_ratio: float
    num_cycles: int
    plateau_factor: float
    plateau_patience: int
    betas: tuple[float, ...]
    epsilon: float


@dataclass(frozen=True, slots=True)
class AdamW8bit:
    name: Literal["adamw_8bit"]
    learning_rate: float
    weight_decay: float
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "inverse_sqrt", "reduce_lr_on_plateau"
    ]
    warmup_ratio: float | None
    warmup_steps: int | None
    min_lr_ratio: float
    num_cycles: int
    plateau_factor: float
    plateau_patience: int
    betas: tuple[float, ...]
    epsilon: float


@dataclass(frozen=True, slots=True)
class Lion:
    name: Literal["lion"]
    learning_rate: float
    weight_decay: float
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "inverse_sqrt", "reduce_lr_on_plateau"
    ]
    warmup_ratio: float | None
    warmup_steps: int | None
    min_lr_ratio: float
    num_cycles: int
    plateau_factor: float
    plateau_patience: int
    betas: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Lion8bit:
    name: Literal["lion_8bit"]
    learning_rate: float
    weight_decay: float
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "inverse_sqrt", "reduce_lr_on_plateau"
    ]
    warmup_ratio: float | None
    warmup_steps: int | None
    min_lr_ratio: float
    num_cycles: int
    plateau_factor: float
    plateau_patience: int
    betas: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Adafactor:
    name: Literal["adafactor"]
    learning_rate: float
    weight_decay: float
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "inverse_sqrt", "reduce_lr_on_plateau"
    ]
    warmup_ratio: float | None
    warmup_steps: int | None
    min_lr_ratio: float
    num_cycles: int
    plateau_factor: float
    plateau_patience: int


@dataclass(frozen=True, slots=True)
class Sgd:
    name: Literal["sgd"]
    learning_rate: float
    weight_decay: float
    lr_scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "inverse_sqrt", "reduce_lr_on_plateau"
    ]
    warmup_ratio: float | None
    warmup_steps: int | None
    min_lr_ratio: float
    num_cycles: int
    plateau_factor: float
    plateau_patience: int


Optimizer = AdamW | AdamW8bit | Lion | Lion8bit | Adafactor | Sgd


@dataclass(frozen=True, slots=True)
class Training:
    num_epochs: float | None
    max_steps: int | None
    micro_batch_size: int
    gradient_accumulation_steps: int | None
    effective_batch_size: int | None
    gradient_checkpointing: bool
    max_grad_norm: float
    max_loss_spike: float | None
    logging_steps: int
    save_steps: int | None
    keep_checkpoints: int


@dataclass(frozen=True, slots=True)
class Best:
    metric: Literal["eval_loss"]


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    patience: int
    min_delta: float


@dataclass(frozen=True, slots=True)
class Generate:
    rows: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class FieldMetric:
    field: str
    metric: Literal["accuracy", "f1_macro", "f1_micro", "mae"]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    folds: int
    fold: int | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    every_steps: int | None
    max_rows: int | None
    best: Best | None
    early_stopping: EarlyStopping | None
    generate: Generate | None
    metrics: tuple[
        Literal["json_valid", "schema_valid", "exact_match", "field_accuracy", "rouge_l", "tool_calls"] | FieldMetric,
        ...,
    ]
    json_schema: str | None
    cross_validation: CrossValidation | None


@dataclass(frozen=True, slots=True)
class Offload:
    optimizer: Literal["none", "cpu", "nvme"]
    parameters: Literal["none", "cpu", "nvme"]


@dataclass(frozen=True, slots=True)
class HardwareCpu:
    accelerator: Literal["cpu"]
    devices: int
    threads: int | None
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    zero_stage: int | Literal["auto"] | None
    offload: Offload


@dataclass(frozen=True, slots=True)
class HardwareGpu:
    accelerator: Literal["gpu"]
    type: str | None
    devices: int
    nodes: int
    precision: Literal["bf16", "fp16", "fp32"]
    tf32: bool
    zero_stage: int | Literal["auto"] | None
    offload: Offload


@dataclass(frozen=True, slots=True)
class HardwareTpu:
    accelerator: Literal["tpu"]
    topology: str
    runtime: Literal["torch_xla", "torch_tpu"]
    precision: Literal["bf16", "fp32"]


Hardware = HardwareCpu | HardwareGpu | HardwareTpu


@dataclass(frozen=True, slots=True)
class Calibration:
    samples: int


@dataclass(frozen=True, slots=True)
class Gguf:
    method: Literal["gguf"]
    type: Literal["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Gptq:
    method: Literal["gptq"]
    bits: Literal[2, 3, 4, 8]
    group_size: int
    desc_act: bool
    sym: bool
    damp: float
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Quantization:
    load: Literal["nf4", "int8"] | None
    export: tuple[Gguf | Gptq, ...]
    max_perplexity_increase: float | None


@dataclass(frozen=True, slots=True)
class Distillation:
    teacher: str
    temperature: float
    alpha: float
    top_k: int


@dataclass(frozen=True, slots=True)
class Search:
    method: Literal["grid", "random", "bayesian"]
    trials: int
    metric: str
    space: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Artifacts:
    dir: str | None
    max_shard_size: str


@dataclass(frozen=True, slots=True)
class Recipe:
    version: Literal[1]
    name: str
    description: str
    seed: int
    model: Model
    datasets: tuple[Dataset, ...]
    split: Split
    prompt: Prompt
    lora: Lora | None
    optimizer: Optimizer
    training: Training
    evaluation: Evaluation
    hardware: Hardware
    quantization: Quantization
    distillation: Distillation | None
    search: Search | None
    tracking: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...]
    artifacts: Artifacts
