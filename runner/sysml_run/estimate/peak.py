"""The most bytes that one device holds in a step: the largest of the moments at which a step can peak."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import layers
from .step import Step

FLOAT = 4
CHUNKS = 8


@dataclass(frozen=True)
class Fitted:
    """What no formula gives: two constants of CUDA's caching allocator, fitted on published peaks.

    `slack` is reserved beside what comes and goes in a step, as a share of it: fitted on all reserved peaks that
    benchmarks/memory.py calls core. Where lengths change from step to step, blocks of one length serve no other, and
    `varied` times what comes and goes is reserved: fitted on the rows of one table, that of ms-swift. No run fails for
    the latter, since the allocator gives such blocks back before it fails: an estimate of a recipe leaves it out.
    """

    slack: float = 0.12
    varied: float = 2.7


FITTED = Fitted()


@dataclass(frozen=True)
class Peak:
    """Bytes; `slack` is reserved by the allocator and not used, `context` outside of it."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int
    slack: int
    context: int
    host: int

    @property
    def allocated(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers

    @property
    def reserved(self) -> int:
        return self.allocated + self.slack

    @property
    def device(self) -> int:
        return self.reserved + self.context


@dataclass(frozen=True)
class Moment:
    """What is there beside weights and optimizer state."""

    gradients: float = 0
    activations: float = 0
    logits: float = 0
    buffers: float = 0

    @property
    def passing(self) -> float:
        """What is gone before the next step."""
        return self.activations + self.logits + self.buffers

    @property
    def total(self) -> float:
        return self.gradients + self.passing


def of(step: Step, fitted: Fitted = FITTED) -> Peak:
    """The peak of a step after the first, when the optimizer has its state."""
    state, found = step.state, moments(step)
    most = max(found, key=lambda moment: moment.total)
    peak = Peak(
        state.weights,
        round(most.gradients),
        state.optimizer,
        round(most.activations),
        round(most.logits),
        round(most.buffers),
        round(fitted.slack * most.passing),
        step.context,
        state.host,
    )
    if not step.varied:
        return peak
    whole = fitted.varied * (found[0].passing + step.made) + step.updating
    reserved = round(state.weights + state.gradients + state.optimizer + whole)
    room = reserved if step.limit is None else min(reserved, step.limit - step.context)
    return replace(peak, slack=max(peak.slack, room - peak.allocated))


def moments(step: Step) -> tuple[Moment, ...]:
    """The loss; the backward pass of the last layer, and of the first; the optimizer's step."""
    waiting = step.state.gradients if step.accumulated else 0
    working = step.tokens * layers.backward(step) + 2 * step.folded
    whole = step.tokens * layers.kept(step) + step.folded
    kept, one = _kept(step), whole + working
    uncovered = step.model.num_hidden_layers * whole + working + _mask(step)
    exchanged = step.gathered + step.buffers + step.made
    return (
        Moment(waiting, kept, _logits(step), step.gathered + step.cast),
        Moment(waiting, min(kept + one, uncovered), 0, exchanged + step.cast),
        Moment(step.state.gradients, one + _mask(step), 0, exchanged),
        Moment(step.state.gradients, 0, 0, step.updating),
    )


def _kept(step: Step) -> float:
    """By all layers, when the loss is computed; two layers' where they are moved to the machine's memory.

    Of a mask there is one for all layers, a byte for each pair of positions.
    """
    whole = step.tokens * layers.kept(step) + step.folded
    each = {"all": whole, "some": step.tokens * layers.selected(step), "inputs": step.tokens * layers.passed(step)}
    return min(whole, each[step.kept]) * (2 if step.offloaded else step.model.num_hidden_layers) + _mask(step)


def _mask(step: Step) -> int:
    return step.tokens * step.attended if step.attention == "masked" else 0


def _logits(step: Step) -> float:
    """Logits in 16 bits, their fp32 copy, the logarithm of softmax and its gradient; the hidden states they are of.

    A loss that shifts logits copies them once more. Learning from a teacher compares those of labelled positions, once
    with all words and once without the teacher's likeliest. In chunks only 16 bits of all are there, and of their
    gradient.
    """
    words, hidden = step.model.vocab_size, step.model.hidden_size
    each = {
        "plain": (step.width + 3.0 * FLOAT) * words,
        "copied": 4.0 * FLOAT * words,
        "taught": (step.width + 6.0 * FLOAT) * words,
        "chunked": (2.0 * step.width + 2.0 * FLOAT / CHUNKS) * words,
        "fused": 3.0 * FLOAT * hidden,  # a chunk has as many numbers as the hidden states (Hsu et al. 2024)
        "none": 0.0,
    }[step.loss]
    return step.scored * (each + (FLOAT + step.width) * hidden)
