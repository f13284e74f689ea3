"""What makes a training step hold less on its device: one table, in the order of what it costs in speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import architecture, kernels
from .errors import UsageError
from .recipe import HardwareGpu, HardwareTpu, Recipe

SHORTEST = 128  # tokens of a row; a shorter one says little
EIGHT_BIT = ("adamw", "lion")  # of which there is a form with 8-bit moments


@dataclass(frozen=True)
class Saving:
    """Keys of the recipe and what they are set to; `costs` says what of speed, or of what is trained, goes for it."""

    sets: Mapping[str, Any]
    costs: str


Way = Callable[[Recipe], Sequence[Saving]]


def fused(recipe: Recipe) -> Sequence[Saving]:
    """Liger's kernels (Hsu et al. 2024)."""
    if not isinstance(recipe.hardware, HardwareGpu) or recipe.model.kernels == "liger":
        return ()
    try:
        found = architecture.find(recipe.model)
    except UsageError:  # said where the model's files are needed
        return ()
    costs = "no slower: what stands between products is not kept; pip install 'sysml-run[liger]'"
    return (Saving({"model.kernels": "liger"}, costs),) if found and found.model_type in kernels.LIGER else ()


def attention(recipe: Recipe) -> Sequence[Saving]:
    """Without the matrix of length x length (Dao et al. 2022)."""
    if recipe.model.attn_implementation != "eager" or isinstance(recipe.hardware, HardwareTpu):
        return ()
    return (Saving({"model.attn_implementation": "sdpa"}, "no slower, except for short rows on a processor"),)


def checkpointing(recipe: Recipe) -> Sequence[Saving]:
    """Korthikanti et al. 2022, section 5: the forward pass is a third of the work."""
    if recipe.training.gradient_checkpointing:
        return ()
    costs = "about a third slower: activations are computed once more"
    return (Saving({"training.gradient_checkpointing": True}, costs),)


def rows(recipe: Recipe) -> Sequence[Saving]:
    """Fewer at a time, and as many in a step."""
    training = recipe.training
    whole, accumulated = training.micro_batch_size, training.gradient_accumulation_steps or 1
    found = []
    for micro in range(whole - 1, 0, -1):
        if whole % micro == 0:
            sets: dict[str, int] = {"training.micro_batch_size": micro}
            if training.effective_batch_size is None:
                sets["training.gradient_accumulation_steps"] = accumulated * whole // micro
            found.append(Saving(sets, "as many rows a step, fewer at a time"))
    return found


def sharding(recipe: Recipe) -> Sequence[Saving]:
    """Rajbhandari et al. 2020, section 7: stage 2 has the traffic of none, stage 3 half as much again."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareTpu) or hardware.devices * getattr(hardware, "nodes", 1) == 1:
        return ()
    stages = {2: "as much traffic: gradients and optimizer state are shared out", 3: "half as much traffic again"}
    now = int(hardware.zero_stage or 0) if hardware.zero_stage != "auto" else 0
    return [Saving({"hardware.zero_stage": stage}, costs) for stage, costs in stages.items() if stage > now]


def eight_bit(recipe: Recipe) -> Sequence[Saving]:
    """Dettmers et al. 2022."""
    name = recipe.optimizer.name
    if name not in EIGHT_BIT or not isinstance(recipe.hardware, HardwareGpu):
        return ()
    return (Saving({"optimizer.name": f"{name}_8bit"}, "as fast: the optimizer's moments are rounded to 8 bits"),)


def four_bit(recipe: Recipe) -> Sequence[Saving]:
    """QLoRA (Dettmers et al. 2023)."""
    if recipe.lora is None or recipe.quantization.load == "nf4" or isinstance(recipe.hardware, HardwareTpu):
        return ()
    return (Saving({"quantization.load": "nf4"}, "slower: the base is in 4 bits and unpacked at every use"),)


def offloading(recipe: Recipe) -> Sequence[Saving]:
    """ZeRO-Offload (Ren et al. 2021), and of weights ZeRO-Infinity (Rajbhandari et al. 2021)."""
    hardware = recipe.hardware
    if not isinstance(hardware, HardwareGpu):
        return ()
    moment, weight = hardware.offload.optimizer == "none", hardware.offload.parameters == "none"
    second = {} if hardware.zero_stage in (2, 3) else {"hardware.zero_stage": 2}
    third = {} if hardware.zero_stage == 3 else {"hardware.zero_stage": 3}
    optimizer, parameters = {"hardware.offload.optimizer": "cpu"}, {"hardware.offload.parameters": "cpu"}
    slower = "much slower: the optimizer's state is in the machine's memory"
    slowest = "slowest: weights come from the machine's memory at every use"
    found = [Saving({**second, **optimizer}, slower)] if moment else []
    found += [Saving({**third, **parameters}, slowest)] if weight else []
    return [*found, Saving({**third, **optimizer, **parameters}, slowest)] if moment and weight else found


def shorter(recipe: Recipe) -> Sequence[Saving]:
    length, found = recipe.prompt.sequence_len // 2, list[Saving]()
    while length >= SHORTEST:
        found.append(Saving({"prompt.sequence_len": length}, "longer rows are cut, and what is cut is not learnt"))
        length //= 2
    return found


def adapters(recipe: Recipe) -> Sequence[Saving]:
    """LoRA (Hu et al. 2021): where no way is left."""
    if recipe.lora is not None:
        return ()
    return (Saving({"lora": {"r": 16, "alpha": 32}}, "another training: adapters in place of every weight"),)


WAYS: tuple[Way, ...] = (*(fused, attention, checkpointing, rows, sharding, eight_bit, four_bit, offloading, shorter),)
