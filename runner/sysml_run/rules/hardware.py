"""What a kind of hardware cannot do, or does very slowly."""

from __future__ import annotations

from sysml_run import cards
from sysml_run.recipe import HardwareGpu, Recipe
from sysml_run.wording import closest

from .finding import Finding, Findings


def half_precision(recipe: Recipe) -> Findings:
    """On a processor fp16 is emulated: 57 times the time of fp32 for a product of matrices, measured with AVX-512."""
    if recipe.hardware.accelerator != "cpu":
        return
    slow = "fp16 on a processor is 40 to 100 times slower than fp32"
    if recipe.hardware.precision == "fp16":
        yield Finding("hardware.precision", slow, "write auto, bf16 or fp32")
    if recipe.model.dtype == "float16":
        yield Finding("model.dtype", f"the evaluation computes in it, and {slow}", "write float32 or bfloat16")


def flash_attention(recipe: Recipe) -> Findings:
    if recipe.model.attn_implementation != "flash_attention_2":
        return
    at, hint = "model.attn_implementation", "write auto, eager or sdpa"
    if not isinstance(recipe.hardware, HardwareGpu):
        yield Finding(at, "flash attention needs a GPU", hint)
    elif recipe.hardware.precision == "fp32":
        yield Finding(at, "flash attention computes in 16 bits, and hardware.precision is fp32", hint)
    elif recipe.model.dtype == "float32":
        yield Finding(at, "flash attention computes in 16 bits, and model.dtype is float32", hint)
    elif not cards.ampere(recipe.hardware.type):
        yield Finding(
            at, f"flash attention needs an Ampere card or a newer one, and {recipe.hardware.type} is older", hint
        )


def liger(recipe: Recipe) -> Findings:
    if recipe.model.kernels == "liger" and not isinstance(recipe.hardware, HardwareGpu):
        yield Finding("model.kernels", "Liger's kernels are for cards", "write auto or torch")


def card(recipe: Recipe) -> Findings:
    """A name like that of a known card, by which the plan would know its memory; others may be right."""
    name = getattr(recipe.hardware, "type", None)
    near = None if name is None or cards.known(name) else closest(name, cards.names(), 0.8)
    if near:
        yield Finding("hardware.type", f"no card called {name} is known", f"did you mean {near}?", "warning")


def card_without_bf16(recipe: Recipe) -> Findings:
    """Cards before Ampere multiply bf16 by emulation, slower than fp32."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareGpu) and hardware.precision == "bf16" and not cards.ampere(hardware.type):
        message = f"{hardware.type} has no bf16 and emulates it slowly"
        yield Finding("hardware.precision", message, "write precision: fp16", "warning", or_at="hardware.type")
