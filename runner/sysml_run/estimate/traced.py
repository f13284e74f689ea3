"""The estimate of a model that was traced: what its step holds was seen, the rest is as in the closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sysml_run import counts
from sysml_run.recipe import HardwareCpu, Recipe
from sysml_run.shapes import Tensor

from . import cpu, peak, recipes
from .parts import Estimate
from .step import State

BAND = 0.25  # what the allocator and libraries take beside tensors is not traced


@dataclass(frozen=True)
class Traced:
    """Of one micro batch on one device that shares nothing with others, in bytes; `total` is of numbers.

    `activations` are all that came and went at the fullest moment, logits too, and `waiting` the gradients then;
    `passing` is what came and went where that was most. `copied` are fp32 copies of adapters' inputs, over all layers,
    and `mapped` fp32 weights in the model's file that adapters have copied in 16 bits. `trained` are the shapes of the
    tensors that the optimizer is given.
    """

    model_type: str
    total: int
    weights: int
    gradients: int
    activations: int
    passing: int
    copied: int
    mapped: int
    waiting: int
    trained: Sequence[Sequence[int]]


def of(recipe: Recipe, found: Traced) -> Estimate:
    """Bytes of one device, for a recipe that trains on a processor or on cards."""
    state = counts.shared_out(recipe, found.weights, [Tensor(tuple(shape)) for shape in found.trained])
    weights, gradients, optimizer, host = (state[name] for name in ("weights", "gradients", "optimizer", "host"))
    if isinstance(recipe.hardware, HardwareCpu):  # where gradients count at every moment
        around = cpu.around(recipe, found.passing, found.copied) + found.mapped
        return Estimate(weights, gradients, optimizer, found.passing, 0, around, host, BAND)
    own = State(weights, gradients, optimizer, host)
    exchanged = recipes.buffers(recipe, own) + recipes.whole(recipe, found.total, 0)
    most = max(
        peak.Moment(min(found.waiting, gradients), found.activations, 0, exchanged),
        peak.Moment(gradients, 0, 0, recipes.updating(recipe, own)),
        key=lambda moment: moment.total,
    )
    around = recipes.context(recipe) + round(most.buffers + peak.FITTED.slack * most.passing)
    return Estimate(weights, round(most.gradients), optimizer, round(most.activations), 0, around, host, BAND)
