"""What a TPU slice is, and what torch_xla cannot do on one."""

from __future__ import annotations

from sysml_run import slices
from sysml_run.errors import UsageError
from sysml_run.recipe import HardwareTpu, Recipe

from . import bounds
from .finding import Finding, Findings

UNKNOWN = ("tpu7x",)  # of generations newer than torch_xla's last release


def tpu_slice(recipe: Recipe) -> Findings:
    """A name that Google gives to no slice, and one that torch_xla may not know."""
    if not isinstance(recipe.hardware, HardwareTpu):
        return
    try:
        found = slices.find(recipe.hardware.topology)
    except UsageError as error:
        yield Finding("hardware.topology", error.message, error.hint)
        return
    if found.generation in UNKNOWN:
        message = f"{found.generation} is newer than torch_xla 2.9, which may not find it"
        yield Finding("hardware.topology", message, "v4, v5e, v5p and v6e are known to it", "warning")


def tpu_runtime(recipe: Recipe) -> Findings:
    """torch-tpu 0.2.0 on PyPI: without hardware it registers no device, and accelerate 1.15.0 has no branch for it."""
    if isinstance(recipe.hardware, HardwareTpu) and recipe.hardware.runtime != "torch_xla":
        message = f"accelerate 1.15 knows nothing of {recipe.hardware.runtime}, and would train on the processor"
        yield Finding("hardware.runtime", message, "write torch_xla, or remove it")


def tpu_dtype(recipe: Recipe) -> Findings:
    if recipe.hardware.accelerator == "tpu" and recipe.model.dtype == "float16":
        yield Finding("model.dtype", "a TPU computes in bf16 and fp32 and has no fp16", "write bfloat16 or float32")


def tpu_quantized(recipe: Recipe) -> Findings:
    if recipe.hardware.accelerator == "tpu" and recipe.quantization.load is not None:
        message = f"{recipe.quantization.load} is bitsandbytes', which has nothing for a TPU"
        yield Finding("quantization.load", message, "remove it: the weights are sharded over every core")


def tpu_optimizer(recipe: Recipe) -> Findings:
    name = recipe.optimizer.name
    if recipe.hardware.accelerator == "tpu" and name.endswith("_8bit"):
        message = f"{name} is bitsandbytes', which has nothing for a TPU"
        yield Finding("optimizer.name", message, f"write {name.removesuffix('_8bit')}")


def tpu_attention(recipe: Recipe) -> Findings:
    """Under autocast for XLA queries and keys stay fp32 and values are bf16; eager products are cast whole."""
    bf16 = recipe.hardware.accelerator == "tpu" and recipe.hardware.precision == "bf16"
    if bf16 and recipe.model.attn_implementation == "sdpa":
        message = "on a TPU sdpa gets queries in fp32 and values in bf16, and refuses them"
        yield Finding("model.attn_implementation", message, "write auto or eager")


def tpu_shapes(recipe: Recipe) -> Findings:
    """XLA compiles a program for every shape of a batch: measured, 5 in 8 steps padded to the longest row."""
    if recipe.hardware.accelerator == "tpu" and recipe.prompt.padding == "dynamic":
        message = "on a TPU every length of a batch is compiled anew, which takes longer than training on it"
        yield Finding("prompt.padding", message, "write max_length or bucketed, or remove it", written=True)


def tpu_rows(recipe: Recipe) -> Findings:
    """Rows that fill no batch are left out, so that there would be no step."""
    devices, rows = bounds.world(recipe), bounds.training_rows(recipe)
    if recipe.hardware.accelerator != "tpu" or devices is None or rows is None or recipe.prompt.packing:
        return
    size = recipe.training.micro_batch_size * devices
    if rows < size:
        message = f"{devices} devices take {bounds.number(size)} rows at once, and there are at most {rows} to train on"
        yield Finding("training.micro_batch_size", message, "name a smaller slice", or_at="hardware.topology")
