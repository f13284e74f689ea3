"""How long training takes: the operations of a step, and the rates at which published trainings did theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sysml_run import cards, counts, slices
from sysml_run.architecture import Architecture
from sysml_run.machine import Machine
from sysml_run.prepared import Counted
from sysml_run.recipe import HardwareGpu, HardwareTpu, Recipe
from sysml_run.shapes import linears

# Shares of the peak that operations of the model alone made up: GPT-3 and PaLM (Chowdhery et al. 2022, table 3).
USE = (0.213, 0.462)
USE_SOURCE = "21 to 46 % of the peak, as GPT-3 and PaLM (arXiv 2204.02311, table 3)"
PROCESSOR = "a processor's rate is not known before it trains"


@dataclass(frozen=True)
class Hours:
    """Of one optimizer step over all devices: `flops` operations, and `seconds` from the fastest to the slowest.

    `steps` is None where the rows are not counted, `seconds` where the devices' rate is not known; `why` says so then,
    and else what the range rests on.
    """

    tokens: int
    flops: float
    steps: int | None
    seconds: tuple[float, float] | None
    why: str

    @property
    def hours(self) -> tuple[float, float] | None:
        """From start to end of training, without what is evaluated and saved between the steps."""
        if self.steps is None or self.seconds is None:
            return None
        return self.steps * self.seconds[0] / 3600, self.steps * self.seconds[1] / 3600


def hours(recipe: Recipe, machine: Machine, batch: Mapping[str, int], tokens: int, steps: int | None) -> Hours | None:
    """Of a settled recipe with `tokens` in a step; None where the architecture of its model is not known."""
    found = counts.architecture_of(recipe)
    if found is None:
        return None
    flops = tokens * per_token(recipe, found, tokens / batch["effective"])
    rate, why = peak(recipe, machine)
    if rate is None:
        return Hours(tokens, flops, steps, None, why)
    slow, fast = (flops / (share * rate * batch["world_size"]) for share in USE)
    least = _reading(recipe, found) * batch["accumulation"]
    return Hours(tokens, flops, steps, (max(fast, least), max(slow, least)), USE_SOURCE)


def tokens(recipe: Recipe, batch: Mapping[str, int], counted: Counted | None) -> tuple[int | None, int]:
    """Of an optimizer step: the mean over the training rows where they are counted, and what it cannot exceed.

    Packed rows are full, and so are those padded to `sequence_len`.
    """
    most = recipe.prompt.sequence_len * batch["effective"]
    if recipe.prompt.packing:
        return most, most
    if counted is None:
        return None, most
    split = counted.report["splits"]["train"]
    return round(split["tokens"]["total"] / split["rows"] * batch["effective"]) if split["rows"] else 0, most


def per_token(recipe: Recipe, found: Architecture, length: float) -> float:
    """Operations that training does for one token of a row of `length`.

    2 for each weight that a token meets forward, 2 for the gradient of its input, 2 for its own where it is trained
    (Kaplan et al. 2020, section 2.1); attention's 12 x layers x width x length (Chowdhery et al. 2022, appendix B); and
    the forward pass once more under checkpointing (Korthikanti et al. 2022, section 5).
    """
    used = active(recipe, found)
    inner = found.num_attention_heads * found.head_dim
    attention = 4 * found.num_hidden_layers * inner * length
    again = 1 if recipe.training.gradient_checkpointing else 0
    if recipe.lora is None:
        return (6 + 2 * again) * used + (3 + again) * attention
    counted = counts.parameters(recipe)
    assert counted is not None
    return (4 + 2 * again) * used + (6 + 2 * again) * counted.trainable + (3 + again) * attention


def active(recipe: Recipe, found: Architecture) -> int:
    """Weights of matrices that one token is multiplied by: of the experts those it is sent to, on a TPU all.

    The first matrix is looked up, not multiplied by.
    """
    met = found.num_experts_per_tok if recipe.hardware.accelerator != "tpu" else found.num_local_experts
    used = (linear for linear in linears(found) if linear.name != "embed_tokens")
    return sum(
        linear.inputs * linear.outputs * linear.layers * (met if linear.experts is not None else 1) for linear in used
    )


def peak(recipe: Recipe, machine: Machine) -> tuple[float | None, str]:
    """Operations a second of one device at this precision, else None and why."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareTpu):
        if machine.virtual or hardware.precision != "bf16":
            return None, PROCESSOR if machine.virtual else "no rate of a TPU in fp32 is published"
        return slices.find(hardware.topology).peak * cards.TERA, ""
    if not isinstance(hardware, HardwareGpu):
        return None, PROCESSOR
    card = cards.find(hardware.type)
    if card is None:
        return None, "hardware.type is no card whose rate is known here"
    if hardware.precision == "fp32":
        return (card.peak / 2, "") if hardware.tf32 and not card.old else (None, "the card's rate in fp32 is not known")
    return card.peak, ""


def _reading(recipe: Recipe, found: Architecture) -> float:
    """Seconds in which a card can read every weight once for each pass over a micro batch: no step is faster."""
    card = cards.find(getattr(recipe.hardware, "type", None))
    if card is None:
        return 0.0
    passes = 3 if recipe.training.gradient_checkpointing else 2
    width = 0.5 if recipe.quantization.load == "nf4" else 1 if recipe.quantization.load else 2
    return passes * width * active(recipe, found) / card.bandwidth
