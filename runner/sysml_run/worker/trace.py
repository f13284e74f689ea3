"""`python -m sysml_run.worker.trace`: a step of a recipe's model on tensors that hold nothing, as bytes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from sysml_run.errors import StageError, SysmlError
from sysml_run.modelref import locate
from sysml_run.recipe import Recipe
from sysml_run.resolve import build

from . import gptq, kbit, settings, train


def main() -> int:
    """Read `{"values", "config"}`, write as JSON what `traced` gives, or `{"message", "hint"}` with exit code 1.

    `config` is the model's config.json, None for a GGUF file.
    """
    gptq.hide()
    asked = json.load(sys.stdin)
    try:
        found: dict[str, Any] = traced(build(asked["values"]), asked["config"])
    except SysmlError as error:
        found = {"message": error.message, "hint": error.hint}
    except Exception as error:
        found = {"message": f"the model could not be traced: {type(error).__name__}: {error}", "hint": None}
    json.dump(found, sys.stdout)
    return 1 if "message" in found else 0


def traced(recipe: Recipe, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Bytes of `weights`, of `gradients`, and of all else that the forward and backward pass hold at most together.

    `trained` are the shapes of the tensors that the optimizer is given. Raises StageError for what cannot be traced.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    if recipe.quantization.load:
        raise StageError(f"a base in {recipe.quantization.load} cannot be traced", "leave out --trace")
    model = built(recipe, config)
    _plain_experts()
    with FakeTensorMode(allow_non_fake_inputs=True):
        hollow(model)
        weights = [*model.parameters()]
        passing = peak(recipe, model)
    trained = [each for each in weights if each.requires_grad]
    return {
        "model_type": model.config.model_type,
        "total": sum(map(torch.Tensor.numel, weights)),
        "weights": sum(each.nbytes for each in weights),
        "gradients": sum(each.nbytes for each in trained),
        "trained": [list(each.shape) for each in trained],
        **adapted(recipe, model),
        **passing,
    }


def built(recipe: Recipe, config: Mapping[str, Any] | None) -> Any:
    """The model with its adapters as training holds it, of shapes alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    named = recipe.model.attn_implementation
    dtype = getattr(torch, train.training_dtype(recipe))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            _config(recipe, config, AutoConfig),
            dtype=dtype,
            attn_implementation="eager" if named == "eager" else "sdpa",  # flash attention holds as little as sdpa
            trust_remote_code=recipe.model.trust_remote_code,
        )
    if recipe.lora is not None:
        from peft import get_peft_model

        model = get_peft_model(model, settings.adapter(recipe.lora, model), low_cpu_mem_usage=True)
        kbit.widen_adapters(model)
        if recipe.hardware.precision == "bf16" and getattr(recipe.hardware, "zero_stage", None) is None:
            train.cast_frozen(model)
    if recipe.training.gradient_checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    return model.train()


def adapted(recipe: Recipe, model: Any) -> dict[str, int]:
    """In bytes: the fp32 copies that PEFT makes of adapters' inputs, and the file's fp32 weights that were copied."""
    import torch

    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    tokens = recipe.training.micro_batch_size * recipe.prompt.sequence_len
    inputs = sum(matrix.in_features for layer in layers for matrix in layer.lora_A.values())
    weights = (getattr(layer.get_base_layer(), "weight", None) for layer in layers)
    cast = sum(weight.numel() for weight in weights if weight is not None and weight.dtype == torch.bfloat16)
    return {
        "copied": 0 if recipe.hardware.precision == "fp32" else 4 * tokens * inputs,
        "mapped": 4 * cast if recipe.model.dtype == "float32" else 0,
    }


def hollow(model: Any) -> None:
    """Put a tensor of a processor in the place of each that has a shape alone; what was one stays one."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = made.setdefault(id(tensor), _like(tensor))


def peak(recipe: Recipe, model: Any) -> dict[str, int]:
    """`activations` of the moment that holds most, and the `waiting` gradients that are there at that moment.

    `passing` is the most of all else at any moment.
    """
    import torch

    rows = torch.zeros((recipe.training.micro_batch_size, recipe.prompt.sequence_len), dtype=torch.long)
    half = recipe.hardware.precision != "fp32"
    tracker = _tracker()
    tracker.track_external(model)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(tracker.arrived)
    between = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with tracker:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = _loss(model, rows)
        loss.backward()
    rest = {"activations": tracker.most - between - tracker.then, "passing": tracker.other - between}
    return {**rest, "waiting": tracker.then}


def _tracker() -> Any:
    """torch's MemTracker, for the whole model alone: for each module as well it takes minutes where layers are many.

    `most` bytes were there at one time, `then` of them in gradients, and `other` is the most without those. It would
    hook every weight to see its gradient come, which one that is not trained refuses.
    """
    from torch.distributed._tools.mem_tracker import MemTracker

    class Tracker(MemTracker):  # type: ignore[misc]
        most = then = waiting = other = 0

        def arrived(self, weight: Any) -> None:
            self.waiting += weight.grad.nbytes

        def _update_peak_stats(self, _: Any) -> None:
            held = sum(snap["Total"] for snap in self._curr_mem_snap.values())
            self.other = max(self.other, held - self.waiting)
            if held > self.most:
                self.most, self.then = held, self.waiting

        def _track_module_params_and_buffers(self, module: Any, install_grad_hooks: bool = True) -> Any:
            return super()._track_module_params_and_buffers(module, install_grad_hooks=False)

    return Tracker()


def _loss(model: Any, rows: Any) -> Any:
    """As in training, where every position is labelled."""
    import torch

    logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")


def _plain_experts() -> None:
    """Have transformers multiply tokens with their experts by its own loop: torch's product knows no fp32 shapes."""
    from transformers.integrations import moe

    moe._can_use_grouped_mm = lambda *_: False


def _like(tensor: Any) -> Any:
    import torch

    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else empty


def _config(recipe: Recipe, config: Mapping[str, Any] | None, maker: Any) -> Any:
    """transformers' configuration, from values or from a file's header."""
    ref = locate(recipe.model.base_model)
    if config is None:
        return maker.from_pretrained(ref.path.parent, gguf_file=ref.path.name)
    values = dict(config)
    if recipe.model.trust_remote_code and "auto_map" in values:
        return maker.from_pretrained(ref.path, trust_remote_code=True)
    return maker.for_model(values.pop("model_type"), **values)


if __name__ == "__main__":
    importlib.import_module("sysml_run.worker.__main__").quiet()
    raise SystemExit(main())
