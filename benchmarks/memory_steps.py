"""A published case as a recipe of ours, and as a step with what a recipe has no word for.

What is read of a case are its settings and the words about them, never the figure that is to be predicted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memory_cases import SIZES, Case

from sysml_run import counts, document
from sysml_run.architecture import Architecture
from sysml_run.estimate import recipes
from sysml_run.estimate.step import Kept, Loss, State, Step
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

GIB, MIB = 2**30, 2**20
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = {name.split("_")[0]: name for name in LINEARS} | {"output": "lm_head"}
LENGTH, ROWS = 512, 4  # tokens and rows where the source says nothing, or that rows are far below their limit
ATTENTION = {"FA2": "flash_attention_2", "(flash)": "flash_attention_2", "eager": "eager"}
OPTIMIZERS = {"8bit": "adamw_8bit", "adafactor": "adafactor"}
LOADED = {"NF4": "nf4", "int4": "nf4", "int8": "int8"}
BITS = {
    "NF4": 4.127,
    "int4": 4.16,
    "int8": 8.16,
}  # of a number, with its part of scales and zeros (GPTQ: groups of 128)
KEPT: Mapping[Any, Kept] = {True: "inputs", False: "all", None: "inputs"}
LOSSES: Mapping[str, Loss] = {"upcast": "copied", "chunked": "chunked", "Liger": "fused", "cut CE": "fused"}
# PEFT's prepare_model_for_kbit_training leaves what is not quantized in fp32; these use it and do not undo it.
WIDE_ENDS = ("huggingface/trl", "modelscope/ms-swift")


def architecture(case: Case) -> Architecture | None:
    """None where only the number of parameters is published."""
    sizes = case["architecture"]
    if "num_layers" not in sizes:
        return None
    values = {ours: sizes[theirs] for theirs, ours in SIZES.items()}
    return Architecture("mixtral" if sizes["num_experts"] else "llama", case["source"], **values)


def recipe(case: Case) -> Recipe:
    """What this project would be told to do the same; its model is named elsewhere."""
    optimizer = _first(OPTIMIZERS, case["optimizer"].lower(), "adamw")
    adapter = (
        f"{{r: {case['lora']['rank']}, target_modules: [{', '.join(_targets(case))}]}}" if case["lora"] else "null"
    )
    stage = "null" if case["zero_stage"] is None else case["zero_stage"]
    attention = _first(ATTENTION, case["attention_impl"] or "", "sdpa")
    text = f"""\
version: 1
name: published
model: {{base_model: tiny:llama, dtype: bfloat16, attn_implementation: {attention}, kernels: torch}}
datasets: [{{path: /rows.jsonl, type: messages}}]
prompt: {{sequence_len: {_length(case)}}}
lora: {adapter}
optimizer: {{name: {optimizer}, learning_rate: 1e-4}}
training:
  max_steps: 1
  micro_batch_size: {case["micro_batch"] or ROWS}
  gradient_accumulation_steps: {case["grad_accum"] or 1}
  gradient_checkpointing: {str(KEPT.get(case["grad_ckpt"]) == "inputs").lower()}
hardware: {{accelerator: gpu, devices: {case.devices}, precision: {_precision(case)}, zero_stage: {stage}}}
quantization: {{load: {_first(LOADED, case["precision"], "null")}}}
"""
    return resolve(document.parse(text, case["id"])).recipe


def step(case: Case, found: Architecture) -> Step:
    """The recipe's step, and what the case's program does otherwise."""
    wanted = recipe(case)
    extra, full = case["extra"], case["lora"] is None
    ours = recipes.describe(wanted, found, state(case, found, wanted))
    shared = extra.get("tensor_parallel", 1) * extra.get("context_parallel", 1)
    tokens = ours.tokens // shared
    wide = full and not ("fp32" not in case["precision"] or "mixed" in case["precision"])
    pure = full and case["precision"] != "fp32"
    gathered, buffers = exchanged(case, found, tokens)
    return replace(
        ours,
        tokens=tokens,
        attended=ours.attended // extra.get("context_parallel", 1),
        scored=tokens,
        stream=4 if wide else 2,
        held=_once() if pure else ours.held,
        kept=_kept(case),
        attention="sdpa" if ours.attention == "masked" else ours.attention,  # rows are full
        loss=_loss(case),
        gated=case["architecture"].get("gated_mlp", True),
        fused=bool(case["compile"]),
        dropout="head" in extra,
        offloaded="activations" in (case["offload"] or "") or "Unsloth" in extra.get("engine", ""),
        gathered=gathered,
        buffers=buffers,
        updating=_updating(case, ours.state),
        context=extra["cuda_context_mib"] * MIB if "cuda_context_mib" in extra else recipes.CUDA,
        cast=2 * case.parameters if "autocast" in case["precision"] else 0,
        varied="longest batch" in case.text and "empty_cache" not in case.text,
        limit=_card(case),
    )


def state(case: Case, found: Architecture | None, wanted: Recipe | None = None) -> State:
    """What one device holds between steps, by the precision and the optimizer that the case names."""
    weights, gradients, states = widths(case)
    trained, frozen = float(case.parameters), 0.0
    if found is not None and wanted is not None and wanted.lora is not None:
        rank, adapted = wanted.lora.r, counts.adapted(wanted.lora, found)
        trained = sum(layers * rank * (linear.inputs + linear.outputs) for linear, layers in adapted.items())
        trained += recipes.ends(found) if "embedding and head" in case["method"] else 0
        frozen = _frozen(case, found)
    elif case["lora"]:
        trained, frozen = 0.0, _frozen(case, None)
    whole = {"weights": frozen + weights * trained, "gradients": gradients * trained, "optimizer": states * trained}
    if "in-backward" in case["optimizer"] and found is not None:  # only the largest tensor's are ever there
        whole["gradients"] = gradients * found.vocab_size * found.hidden_size
    each = counts.divided({name: round(size) for name, size in whole.items()}, case["zero_stage"] or 0, case.devices)
    offload = case["offload"] or ""
    away = {"weights": "param" in offload, "gradients": "optimizer" in offload, "optimizer": "optimizer" in offload}
    return State(**{name: 0 if away[name] else size for name, size in each.items()})


def widths(case: Case) -> tuple[float, float, float]:
    """Bytes of a trained number: the weight, its gradient, and the optimizer's state with any copy of it."""
    precision, optimizer = case["precision"], case["optimizer"]
    if precision.startswith("fp16 mixed"):
        # ZeRO's own count, and DeepSpeed's tool, which has gradients widened for the step.
        return (2, 4, 12) if "largest_layer_params" in case["architecture"] else (2, 2, 12)
    width = 2 if "bf16 states" in optimizer else 4 if "fp32" in precision or case["lora"] else 2
    states = {"8bit": 2.03, "dafactor": 0.01}
    found = next((size for word, size in states.items() if word in optimizer), 2 * width)
    return width, width, 0 if "paged" in optimizer.lower() else found  # in memory that no allocator counts


def exchanged(case: Case, found: Architecture, tokens: int) -> tuple[int, int]:
    """Bytes of weights that are whole at once, and of the buffers that gradients go through.

    FSDP2 keeps the ends whole throughout, beside the layer that is computed, the next one, and the buffer they arrive
    in. Gradients of a layer are there whole, and copied in two buffers; those of the head wait for the embedding's.
    Where experts share one tensor, the gradient of each is as large as that tensor: two are there at once.
    With tensor parallelism the head's input is gathered, and so is its gradient.
    """
    parallel = case["extra"].get("tensor_parallel", 1)
    gathered = 4 * found.hidden_size * tokens * parallel if parallel > 1 else 0
    if case["zero_stage"] in (1, 2) or "deepspeed" in case["ambiguity"].lower():
        return gathered, 4 * recipes.BUCKET
    if case["zero_stage"] != 3:
        return gathered, 0
    layer = (case.parameters - recipes.ends(found)) // found.num_hidden_layers
    gathered += 2 * (recipes.ends(found) + 3 * layer) // parallel
    if case["lora"]:
        return gathered, 0
    experts = 8 * found.num_local_experts * found.hidden_size * found.intermediate_size
    return gathered, (2 * found.vocab_size * found.hidden_size + 6 * layer + experts) // parallel


def _targets(case: Case) -> list[str]:
    """The names in `lora.targets`; those of attention alone where "experts are not Linear"."""
    text, _, aside = case["lora"]["targets"].lower().partition("(")
    words = [word.rstrip("?") for word in re.split(r"[ ,]+|_proj", text)]
    found = [TARGETS[word] for word in words if word in TARGETS] + [*(LINEARS[4:] if "mlp" in words else ())]
    if not found and "linear" in text and "experts are not" not in aside:
        found = [*LINEARS]
    gated = case["architecture"].get("gated_mlp", True)
    return [name for name in found or LINEARS[:4] if gated or name != "gate_proj"]


def _length(case: Case) -> int:
    return LENGTH if "far below" in case["ambiguity"] else case["seq_len"] or LENGTH


def _precision(case: Case) -> str:
    return "fp32" if case["precision"] == "fp32" else "bf16"


def _kept(case: Case) -> Kept:
    if case["grad_ckpt"] is None and "checkpointing off" in case["ambiguity"]:
        return "all"
    return KEPT.get(case["grad_ckpt"], "some")


def _loss(case: Case) -> Loss:
    """Where it is not named, transformers' of the time, which shifts a copy of the logits."""
    if "head" in case["extra"]:
        return "none"  # two classes and no words
    named = case["lm_head_loss"]
    if named is None or named.startswith("plain"):
        return "copied" if named is None or "upcast" in named else "plain"
    return _first(LOSSES, named, "plain")


def _once() -> dict[str, float]:
    """Without autocast those that share an input keep it once."""
    return dict.fromkeys(("qkv", "unit", "down_proj"), 2)


def _updating(case: Case, own: State) -> int:
    """torch's AdamW takes a number more for each in the step, unless it is fused, as torchtune's is."""
    plain = case["optimizer"].startswith("AdamW") and not re.search("8bit|bf16 states", case["optimizer"])
    return own.gradients if plain else 0


def _frozen(case: Case, found: Architecture | None) -> float:
    """Bytes of weights that are not trained: quantized but for the ends, or in 16 bits."""
    bits = next((size for word, size in BITS.items() if word in case["precision"]), None)
    if bits is None or found is None:
        return case.parameters * (4 if case["precision"].startswith("fp32") else 2)
    wide = "NF4" in case["precision"] and any(program in case["source"] for program in WIDE_ENDS)
    ends = recipes.ends(found)
    return (case.parameters - ends) * bits / 8 + ends * (4 if wide else 2)


def _card(case: Case) -> int | None:
    """What the driver leaves of a card, where its size is named."""
    found = re.search(r"(\d+) ?GB", case["hardware"] or "")
    return round(0.99 * int(found[1]) * GIB) if found else None


def _first(table: Mapping[str, Any], text: str, other: Any) -> Any:
    return next((value for word, value in table.items() if word in text), other)
