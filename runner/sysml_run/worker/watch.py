"""Stops training at a loss that is no number, or that leaps, and names the rows it was computed on."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sysml_run.errors import StageError
from sysml_run.rundir import RunDir

from . import ranks

FEWEST, MOST = 10, 50  # steps whose mean a step is held against
HEARD = 10  # seconds
SHOWN = 8  # rows that a message names; the event names all


class Watch:
    """Follows the micro batches of one optimizer step after the other.

    `limit` is how many times the mean of the steps before it a step may be, `rows` the prepared training rows. Losses
    are read back once a step. Where `scaled`, fp16's loss scaling skips steps whose gradients are no numbers itself.
    """

    def __init__(self, rundir: RunDir, rows: Any, limit: float | None, *, scaled: bool) -> None:
        self.rundir, self.rows, self.limit, self.scaled = rundir, rows, limit, scaled
        self.batches: list[tuple[Any, dict[str, Any]]] = []
        self.before: deque[float] = deque(maxlen=MOST)

    def saw(self, loss: Any, inputs: Mapping[str, Any]) -> None:
        """A micro batch was computed; `loss` is a tensor of one number."""
        kept = ("input_ids", "attention_mask", "position_ids")
        self.batches.append((loss, {name: inputs[name] for name in kept if name in inputs}))

    def settle(self, step: int, gradient: Any) -> None:
        """The step is made; nothing of it is saved yet. Raises StageError."""
        batches, self.batches = self.batches, []
        losses = [float(loss) for loss, _ in batches]
        wrong = [inputs for loss, (_, inputs) in zip(losses, batches, strict=True) if not math.isfinite(loss)]
        if wrong:
            self._stop(step, "the loss is no number", wrong)
        if gradient is not None and not self.scaled and not math.isfinite(float(gradient)):
            if ranks.world() > 1:
                time.sleep(HEARD)  # what all share may come from the loss of another process, which says so at once
            self._stop(step, "the gradients are no numbers", [inputs for _, inputs in batches])
        mean = sum(self.before) / max(1, len(self.before))
        if self.limit is not None and len(self.before) >= FEWEST and sum(losses) > self.limit * mean:
            words = f"the loss is {sum(losses):.3f}, {sum(losses) / mean:.1f} times the mean of the steps before it"
            self._stop(step, f"{words} (training.max_loss_spike: {self.limit:g})", [one for _, one in batches])
        self.before.append(sum(losses))

    def _stop(self, step: int, words: str, batches: Sequence[Mapping[str, Any]]) -> None:
        ids = names(self.rows, [row for inputs in batches for row in documents(inputs)])
        self.rundir.event("loss_stop", step=step, reason=words, rows=ids)
        shown = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
        message = f"step {step}: {words}; it was computed on {shown or 'rows that are not known'}"
        hint = "look at those rows, or lower optimizer.learning_rate; the newest checkpoint is from before this step"
        raise StageError(message, hint)


def documents(inputs: Mapping[str, Any]) -> Iterator[list[int]]:
    """Token ids of each row of a batch; of packed ones each of the rows in it."""
    if "attention_mask" in inputs:
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            yield ids[mask.bool()].tolist()
        return
    for ids, places in zip(inputs["input_ids"].tolist(), inputs["position_ids"].tolist(), strict=True):
        starts = [at for at, place in enumerate(places) if place == 0]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            yield ids[start:end]


def names(rows: Any, wanted: Sequence[Sequence[int]]) -> list[str]:
    """The ids of the rows that have these tokens, in their order; of rows that are alike the first."""
    lengths, asked = {len(tokens) for tokens in wanted}, {tuple(tokens) for tokens in wanted}
    found: dict[tuple[int, ...], str] = {}
    for number, length in enumerate(rows["length"][:]):
        if length in lengths and len(found) < len(asked):
            tokens = tuple(rows[number]["input_ids"])
            if tokens in asked:
                found.setdefault(tokens, rows[number]["id"])
    return list(dict.fromkeys(found[key] for key in map(tuple, wanted) if key in found))
