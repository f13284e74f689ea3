"""What computes attention, norms and rotary embeddings on cards: chosen by what is installed, each with its reason."""

from __future__ import annotations

from . import architecture, cards
from .errors import UsageError
from .machine import Machine
from .recipe import HardwareGpu, Recipe

FLASH = "flash_attention_2"
LIGER = ("llama", "mistral", "mixtral", "qwen2", "qwen3")  # whose parts Liger replaces by others of the same meaning


def attention(recipe: Recipe, machine: Machine) -> tuple[str, str]:
    """Flash attention where it can run and means the same, else torch's own fused attention."""
    hardware, sdpa = recipe.hardware, "sdpa"
    assert isinstance(hardware, HardwareGpu)
    if hardware.precision == "fp32":
        return sdpa, "flash attention computes in 16 bits, and hardware.precision is fp32"
    if recipe.model.dtype == "float32":
        return sdpa, "flash attention computes in 16 bits, and model.dtype is float32"
    if not cards.ampere(hardware.type):
        return sdpa, f"flash attention needs an Ampere card or a newer one, and {hardware.type} is older"
    if "flash_attn" in machine.installed:
        return FLASH, "flash_attn is installed"
    return sdpa, "flash_attn is not installed; torch's own fused attention is"


def fused(recipe: Recipe, machine: Machine) -> tuple[str, str]:
    """Liger's norms, rotary embeddings and gated units (Hsu et al. 2024) where they are installed, else torch's."""
    if "liger_kernel" not in machine.installed:
        return "torch", "liger_kernel is not installed: pip install 'sysml-run[liger]'"
    kind = _kind(recipe)
    if kind not in LIGER:
        return "torch", f"Liger's are known to fit {', '.join(LIGER)}, and the model is {kind or 'not at hand'}"
    return "liger", "liger_kernel is installed and fits the model"


def _kind(recipe: Recipe) -> str | None:
    try:
        found = architecture.find(recipe.model)
    except UsageError:  # said where the model's files are needed
        return None
    return found.model_type if found else None
