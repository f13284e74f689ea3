"""Liger's kernels in place of parts of the model, and what really computes attention, norms and gated units."""

from __future__ import annotations

from typing import Any

from sysml_run.recipe import Recipe

WHOLE = ("llama", "mistral", "qwen2", "qwen3")  # experts that share one tensor keep their own form for the adapters


def apply(recipe: Recipe, model: Any) -> None:
    """Replace the parts in place. The loss stays ours, which computes no logits where nothing is predicted."""
    if recipe.model.kernels != "liger":
        return
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    parts = {"rope": True, "rms_norm": True, "swiglu": model.config.model_type in WHOLE}
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False, **parts)


def facts(model: Any) -> dict[str, Any]:
    """For step 0: the attention that the model was built with, and how many modules run Liger's code."""
    replaced = sum(_origin(module).startswith("liger_kernel.") for module in model.modules())
    kernels = {"kernels": "liger" if replaced else "torch", "liger_modules": replaced}
    return {"attention": _attention(model.config._attn_implementation), **kernels}


def wanted(recipe: Recipe) -> dict[str, Any]:
    """The same facts as the recipe has them, without those that it leaves open."""
    found = {"attention": recipe.model.attn_implementation, "kernels": recipe.model.kernels}
    return {name: value for name, value in found.items() if value != "auto"}


def _origin(module: Any) -> str:
    """The module of the code that computes it: Liger puts its own `forward` on each instance."""
    return str(getattr(module.forward, "__module__", ""))


def _attention(name: str) -> str:
    """Flash attention that comes from the hub is named by its repository."""
    return "flash_attention_2" if name.startswith("kernels-community/") and "flash-attn2" in name else name
