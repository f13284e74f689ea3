"""The trainer of a model that learns from a teacher's predictions beside the labels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe

from . import ranks
from .batches import IGNORED, answer_logits
from .distill import Predictions, taught_losses
from .taught import Taught, shown
from .trainer import Trainer

ROW = "row"  # by which a batch knows what it is to be compared with
COLUMNS = ("loss_tokens", ROW)  # that training rows have for this


def numbered(rows: Any) -> Any:
    """The rows, each with its number."""
    import numpy as np

    return rows.add_column(ROW, np.arange(len(rows)))


class Student(Trainer):
    """Loss of a label's position: alpha * temperature^2 * KL(teacher || model) + (1 - alpha) * cross-entropy."""

    def __init__(self, *, recipe: Recipe, taught: Taught, **rest: Any) -> None:
        assert recipe.distillation is not None
        self.chosen, self.taught = recipe.distillation, taught
        self.predictions = Predictions(taught.path)
        self.sums: Any = 0.0  # of the mean cross-entropy and KL of the steps since `since`
        self.since: int | None = None
        super().__init__(**rest)

    def losses(self, model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """As `taught_losses`; raises StageError where the predictions are not of these rows."""
        rows = inputs.pop("rows").tolist()
        labels, logits, output = answer_logits(model, inputs)
        ids, logprobs = (each.to(logits.device) for each in self.predictions.of(rows))
        if len(ids) != int((labels != IGNORED).sum()):
            message = f"the teacher's predictions are of {len(ids)} positions, and the batch has others"
            raise StageError(message, f"delete {self.taught.path} and start a new run")
        alpha, temperature = self.chosen.alpha, self.chosen.temperature
        losses, self.parts = taught_losses(labels, logits, ids, logprobs, alpha=alpha, temperature=temperature)
        return losses, output

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Beside the loss, adds up its parts, of which `logged` tells the means."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.since = self.state.global_step if self.since is None else self.since
        self.sums = self.sums + self.parts / num_items_in_batch
        return found

    def logged(self) -> dict[str, float]:
        """Both parts of the loss that is logged, the cross-entropy and the KL, unweighted; every process must ask."""
        if self.since is None:
            return {}
        labels, apart = ranks.total(*self.sums.tolist())
        steps = max(1, self.state.global_step - self.since)
        self.sums, self.since = 0.0, None
        return {"cross_entropy": labels / steps, "kl": apart / steps}

    def facts(self) -> dict[str, Any]:
        """For step 0: whose predictions of how many positions are learned from, and how. Raises StageError."""
        offsets = self.predictions.offsets.tolist()
        counts = [stop - start for start, stop in pairwise(offsets)]
        if counts != self.train_dataset["loss_tokens"][:]:
            raise StageError("step 0: the teacher's predictions are not of these rows", "nothing was trained")
        facts = {"teacher": shown(self.taught.teacher), "teacher_positions": offsets[-1], "alpha": self.chosen.alpha}
        kept = {"temperature": self.taught.temperature, "top_k": self.taught.top_k}
        return super().facts() | facts | kept

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if ROW not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, ROW]

    _signature_columns: Any
    parts: Any
