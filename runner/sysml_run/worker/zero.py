"""DeepSpeed in the worker: made ready, compared with the recipe at step 0, and its shards gathered into one model."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import read_json, write_json

from . import ranks

Facts = dict[str, Any]


def on() -> bool:
    """Whether `accelerate launch` was told to train through DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"


def make_ready(recipe: Recipe) -> None:
    """Keep DeepSpeed from compiling its own communication on a processor (gloo's does), and from standard output.

    In stage 0 with 16-bit weights it would lay out the optimizer's state by a step with gradients of zero, which counts
    as one of AdamW's steps and decays the weights: measured, a loss off by 2e-2 three steps later.
    """
    import deepspeed.ops
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

    FP16_UnfusedOptimizer.initialize_optimizer_states = _no_states
    if recipe.hardware.accelerator == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for handler in logging.getLogger("DeepSpeed").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def _no_states(_: Any) -> None:
    """The optimizer makes its state in its first real step."""


def join(on_cpu: bool) -> None:
    """Let DeepSpeed know of the processes that torch has joined: ZeRO-3 shards weights while they are loaded."""
    from deepspeed import comm

    comm.init_distributed(dist_backend="gloo" if on_cpu else "nccl", auto_mpi_discovery=False)


def innermost(optimizer: Any) -> Any:
    """The library's optimizer inside accelerate's and DeepSpeed's wrappers."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def facts(trainer: Any) -> Facts:
    """What DeepSpeed's engine has been built with; `wrapper` is its class around the optimizer, if any."""
    if not trainer.is_deepspeed_enabled:
        found = {"world_size": trainer.accelerator.num_processes, "zero_stage": None}
        return found | {"precision": trainer.accelerator.mixed_precision}
    engine = trainer.model_wrapped
    return {
        "world_size": engine.world_size,
        "precision": _precision(engine),
        "zero_stage": engine.zero_optimization_stage(),
        "offload": _offload(engine),
        "batch_triple": [
            engine.train_micro_batch_size_per_gpu(),
            engine.gradient_accumulation_steps(),
            engine.train_batch_size(),
        ],
        "clipping": engine.gradient_clipping(),
        "wrapper": None if hasattr(engine.optimizer, "defaults") else type(engine.optimizer).__qualname__,
    }


def _precision(engine: Any) -> str:
    """On cards the weights' own format; on a processor what products of fp32 weights are computed in."""
    if engine.torch_autocast_enabled():
        return {"torch.bfloat16": "bf16"}.get(str(engine.torch_autocast_dtype()), str(engine.torch_autocast_dtype()))
    formats = {"bf16": engine.bfloat16_enabled(), "fp16": engine.fp16_enabled()}
    return next((name for name, on in formats.items() if on), "no")


def wanted(recipe: Recipe) -> Facts:
    """The same facts, as the recipe has them."""
    hardware, training = recipe.hardware, recipe.training
    world = getattr(hardware, "devices", 1) * getattr(hardware, "nodes", 1)
    stage = getattr(hardware, "zero_stage", None)
    if stage is None:
        return {"world_size": world, "zero_stage": None}
    offload = getattr(hardware, "offload", None)
    assert offload is not None
    accumulation = training.gradient_accumulation_steps or 1
    return {
        "world_size": world,
        "zero_stage": stage,
        "offload": [offload.optimizer, offload.parameters],
        "batch_triple": [training.micro_batch_size, accumulation, training.micro_batch_size * accumulation * world],
        "clipping": training.max_grad_norm,
    }


def _offload(engine: Any) -> list[str]:
    config = engine._config.zero_config
    devices = (getattr(part, "device", None) for part in (config.offload_optimizer, config.offload_param))
    return [str(getattr(device, "value", device) or "none") for device in devices]


def state(trainer: Any) -> dict[str, Any] | None:
    """The whole tensors that make up what was trained, on the first process; None on the others, which must all ask.

    What is trained is in fp32: DeepSpeed trains such a copy beside 16-bit weights, and the copy is what was learnt. Of
    what is frozen only the matrices at both ends of the model are there, which PEFT may save too.
    """
    model = trainer.model
    ends = {id(end.weight) for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None}
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or id(parameter) in ends:
            whole = _whole(parameter)
            if ranks.first():
                found[name] = whole.cpu()
    return found if ranks.first() else None


def _whole(parameter: Any) -> Any:
    """A parameter of which each process may hold a share; every process must ask."""
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    trained = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
    if trained is not None:
        return trained.detach()
    with GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
        return parameter.detach().clone()


def name_dtype(folder: Path, recipe: Recipe) -> None:
    """Have a whole model's `config.json` say what its weights are saved in; without this it says what they ran in."""
    config = folder / "config.json"
    if config.is_file():
        write_json(config, read_json(config) | {"dtype": recipe.model.dtype})


def refuse_other_size(checkpoint: Path) -> None:
    """Raises StageError for a checkpoint of another number of processes, whose shares of the state it is made of."""
    made_by = len([*checkpoint.glob("rng_state_*.pth")]) or len([*checkpoint.glob("rng_state.pth")])
    if made_by and made_by != ranks.world():
        message = f"{checkpoint.name} was written by {made_by} process(es), and now there are {ranks.world()}"
        hint = f"go on with {made_by}: the optimizer's state and the random numbers are those of {made_by} processes"
        raise StageError(message, hint)
