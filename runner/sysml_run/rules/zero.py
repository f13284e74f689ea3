"""DeepSpeed ZeRO: which stage shards what, and what can then be kept elsewhere."""

from __future__ import annotations

from sysml_run.recipe import HardwareCpu, HardwareTpu, Recipe

from .bounds import world
from .finding import Finding, Findings

Stage = int | str | None


def zero(recipe: Recipe) -> tuple[Stage, str, str]:
    """ZeRO stage (a number, auto, or None for no DeepSpeed) and where optimizer and parameters are kept."""
    if isinstance(recipe.hardware, HardwareTpu):
        return None, "none", "none"
    return recipe.hardware.zero_stage, recipe.hardware.offload.optimizer, recipe.hardware.offload.parameters


def offloaded_parameters(recipe: Recipe) -> Findings:
    """DeepSpeed's configuration: `offload_param` is for ZeRO-3, which alone shards parameters."""
    stage, _, parameters = zero(recipe)
    if parameters != "none" and stage not in (3, "auto"):
        message = f"only ZeRO-3 can keep parameters elsewhere, and zero_stage is {_shown(stage)}"
        yield Finding("hardware.offload.parameters", message, "write zero_stage: 3, or parameters: none")


def offloaded_optimizer(recipe: Recipe) -> Findings:
    """DeepSpeed's configuration: `offload_optimizer` to the processor is for ZeRO-1 to 3, to NVMe for ZeRO-3."""
    stage, optimizer, _ = zero(recipe)
    if stage == "auto" or optimizer == "none":
        return
    at = "hardware.offload.optimizer"
    if not stage:
        message = f"only ZeRO-1 to 3 can keep optimizer state elsewhere, and zero_stage is {_shown(stage)}"
        yield Finding(at, message, "write zero_stage: 2, or optimizer: none")
    elif optimizer == "nvme" and stage != 3:
        message = f"only ZeRO-3 can keep optimizer state on NVMe, and zero_stage is {stage}"
        yield Finding(at, message, "write zero_stage: 3, or optimizer: cpu")


def offload_on_cpu(recipe: Recipe) -> Findings:
    if not isinstance(recipe.hardware, HardwareCpu):
        return
    for name, what in (("optimizer", "optimizer state"), ("parameters", "parameters")):
        if getattr(recipe.hardware.offload, name) == "cpu":
            message = f"moves nothing: training on a processor keeps its {what} there already"
            yield Finding(f"hardware.offload.{name}", message, f"write {name}: none", "warning")


def zero_alone(recipe: Recipe) -> Findings:
    stage, *elsewhere = zero(recipe)
    if stage == 3 and world(recipe) == 1 and elsewhere == ["none", "none"]:
        message = "one device has no other to share parameters with; ZeRO-3 only costs time there"
        yield Finding("hardware.zero_stage", message, "write 0, or offload: {parameters: cpu}", "warning")


def zero_int8(recipe: Recipe) -> Findings:
    """Reported to bitsandbytes: ZeRO-3 gives a loss ten times too high, ZeRO-1 and 2 the right one."""
    if zero(recipe)[0] == 3 and recipe.quantization.load == "int8":
        message = "ZeRO-3 shards int8 weights without their scales, and the loss comes out wrong"
        yield Finding("quantization.load", message, "write nf4, or hardware.zero_stage: 2")


def zero_adafactor(recipe: Recipe) -> Findings:
    """Adafactor (Shazeer and Stern, 2018) factors matrices; transformers' keeps full moments for vectors."""
    if zero(recipe)[0] in (1, 2, 3) and recipe.optimizer.name == "adafactor":
        message = "ZeRO gives the optimizer one long vector, of which Adafactor keeps full-size moments"
        yield Finding("optimizer.name", message, "write adamw_8bit, or hardware.zero_stage: 0", "warning")


def _shown(stage: Stage) -> str:
    return "null" if stage is None else str(stage)
