"""LoRA targets that match nothing, layers that PEFT or TRL refuses to adapt, and what is not quantized under them."""

from __future__ import annotations

from sysml_run import counts, shapes
from sysml_run.recipe import Recipe

from .finding import Finding, Findings
from .model import known


def targets_match(recipe: Recipe) -> Findings:
    """A name that matches nothing would leave its layers as they were while the others are trained."""
    names = _targets(recipe)
    missed = counts.unmatched(recipe) if names else None
    model = known(recipe) if missed else None
    if missed is None or model is None:
        return
    layers = dict.fromkeys(linear.name for linear in shapes.linears(model) if linear.named)
    for at, name in enumerate(names):
        if name in missed:
            message = f"no linear layer of this {model.model_type} is called {name}"
            hint = f"it has {', '.join(layer for layer in layers if layer not in shapes.ENDS)}"
            yield Finding(f"lora.target_modules.{at}", message, hint)


def head_is_not_adapted(recipe: Recipe) -> Findings:
    """TRL multiplies by the head's own weight, so that an adapter there would never be trained."""
    for at, name in enumerate(_targets(recipe)):
        if name.rpartition(".")[2] == "lm_head":
            message = "the loss is computed from the head's own weight, and an adapter there would not be trained"
            yield Finding(f"lora.target_modules.{at}", message, "remove it")


def experts_are_plain(recipe: Recipe) -> Findings:
    lora = recipe.lora
    if lora is None or not (lora.dropout or lora.use_dora):
        return
    shared = counts.plain_only(recipe)
    for key, instead in (("dropout", "0"), ("use_dora", "false")):
        if shared and getattr(lora, key):
            message = f"PEFT has none for the router and the experts: {', '.join(shared)}"
            yield Finding(f"lora.{key}", message, f"write {key}: {instead}, or target_modules: attention")


def experts_keep_their_bits(recipe: Recipe) -> Findings:
    """transformers 5 holds the experts of a layer in one tensor, and bitsandbytes quantizes linear layers alone."""
    model = known(recipe) if recipe.quantization.load else None
    if model is None or not shapes.known(model):
        return
    sizes = [(tensor.matrix, tensor.size * tensor.times) for tensor in shapes.tensors(model)]
    left = sum(size for matrix, size in sizes if matrix is not None and matrix.parameter)
    if left:
        share = f"{100 * left / sum(size for _, size in sizes):.0f} % of the weights"
        message = f"router and experts, {share}, are no linear layers and are not held in {recipe.quantization.load}"
        yield Finding("quantization.load", message, "remove it, or count on the memory they take", "warning")


def _targets(recipe: Recipe) -> tuple[str, ...]:
    """The layers that are named one by one."""
    chosen = recipe.lora.target_modules if recipe.lora else ()
    return chosen if isinstance(chosen, tuple) else ()
