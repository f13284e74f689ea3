"""QLoRA (Dettmers et al. 2023): the frozen base in 4 or 8 bits through bitsandbytes, fp32 adapters beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe

CLASSES = {"nf4": "bitsandbytes.nn.modules.Linear4bit", "int8": "bitsandbytes.nn.modules.Linear8bitLt"}
COMPUTE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
OUTLIERS = 6.0  # LLM.int8() (Dettmers et al. 2022): inputs above it are not rounded to 8 bits, on a GPU


def arguments(recipe: Recipe) -> dict[str, Any]:
    """What `from_pretrained` is told of quantization and of where to quantize; nothing for an unquantized base."""
    if recipe.quantization.load is None:
        return {}
    from transformers.integrations import is_deepspeed_zero3_enabled

    where = {"": "cpu"} if recipe.hardware.accelerator == "cpu" else {"": int(os.environ.get("LOCAL_RANK", "0"))}
    return {
        "quantization_config": config(recipe),
        "device_map": None if is_deepspeed_zero3_enabled() else where,  # ZeRO-3 places weights itself
    }


def config(recipe: Recipe) -> Any:
    """A BitsAndBytesConfig with every number written out; the head is left as it is, which is its default.

    4-bit weights lie in tensors of the compute dtype, so that ZeRO, which shards by dtype, takes them with the rest.
    """
    from transformers import BitsAndBytesConfig

    if recipe.quantization.load == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIERS)
    compute = COMPUTE[recipe.hardware.precision]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute,
    )


def prepare(model: Any) -> Any:
    """Norms and biases in fp32, and quantized layers that compute in evaluation what they compute in training.

    On a processor with AVX-512 bf16, bitsandbytes 0.50 packs 4-bit weights anew in the first evaluation: their scales
    are rounded to bf16, and when training goes on no gradient passes them. Its 8-bit layers round their inputs too in
    evaluation, and not in training.
    """
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data = parameter.data.float()
    for _, layer in layers(model):
        layer.register_forward_pre_hook(_as_in_training)
    return model


def _as_in_training(layer: Any, _: Any) -> None:
    layer.training = True


def widen_adapters(model: Any) -> None:
    """TRL rounds adapters on a quantized base to bf16, which loses small steps and all weight decay; undo it."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and module of each layer held in 4 or 8 bits. Loads no library."""
    for name, module in model.named_modules():
        if quantized(module):
            yield name, module


def quantized(module: Any) -> bool:
    return kind(module) in CLASSES.values()


def kind(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def numbers(parameter: Any) -> int:
    """How many numbers a parameter stands for: 4-bit ones lie two to eight in an element, ZeRO-3 holds a share here."""
    state = getattr(parameter, "quant_state", None)
    return int(getattr(parameter, "ds_numel", parameter.numel()) if state is None else state.shape.numel())


def check(recipe: Recipe, model: Any) -> dict[str, Any]:
    """Facts of the quantized layers for step 0. Raises StageError where they are not as the recipe says."""
    load, found = recipe.quantization.load, dict(layers(model))
    if load is None:
        return _demand(not found, f"{len(found)} layers are quantized, and quantization.load is null")
    _demand(bool(found), f"no layer is in {load}")
    for name, layer in found.items():
        _demand(kind(layer) == CLASSES[load], f"{name} is {kind(layer)}, not {CLASSES[load]}")
        _demand(_held(layer, load, recipe), f"the weight of {name} is not in {load}: {describe(layer)}")
    plain = [name for name, module in model.named_modules() if _left_out(name, module, model)]
    _demand(not plain, f"{', '.join(plain[:3])} is not in {load}")
    _demand(not quantized(model.get_output_embeddings()), "the head is quantized")
    weights = sum(numbers(layer.weight) for layer in found.values())
    return {"quantized_layers": len(found), "quantized_parameters": weights, **describe(next(iter(found.values())))}


def describe(layer: Any) -> dict[str, Any]:
    """How the weight of one quantized layer is held."""
    weight = layer.weight
    state = getattr(weight, "quant_state", None)
    if state is None:
        return {"quantized_as": "int8" if _scales(layer) is not None else "nothing", "storage": str(weight.dtype)}
    return {
        "quantized_as": weight.quant_type,
        "double_quantization": state.nested,
        "compute_dtype": str(layer.compute_dtype),
        "storage": str(weight.dtype),
    }


def _held(layer: Any, load: str, recipe: Recipe) -> bool:
    if load == "int8":
        return describe(layer) == {"quantized_as": "int8", "storage": "torch.int8"}
    compute = f"torch.{COMPUTE[recipe.hardware.precision]}"
    wanted = {"quantized_as": "nf4", "double_quantization": True, "compute_dtype": compute, "storage": compute}
    return describe(layer) == wanted


def _scales(layer: Any) -> Any:
    """Of int8 rows; the first forward pass moves them from the weight to the layer."""
    kept = getattr(layer.weight, "SCB", None)
    return layer.state.SCB if kept is None else kept


def _left_out(name: str, module: Any, model: Any) -> bool:
    import torch

    plain = isinstance(module, torch.nn.Linear) and not quantized(module)
    return plain and ".lora_" not in name and module is not model.get_output_embeddings()


def _demand(kept: bool, words: str) -> dict[str, Any]:
    if not kept:
        raise StageError(f"step 0: {words}", "nothing was trained")
    return {}
