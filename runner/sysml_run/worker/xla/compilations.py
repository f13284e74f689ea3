"""How many programs XLA compiled, when, and for which shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

WARM = 3  # steps in which programs are compiled as a matter of course
ALLOWED = "aten::_local_scalar_dense"  # a number that is read back


def compiled() -> int:
    """Programs so far in this process."""
    import torch_xla.debug.metrics as met

    found = met.metric_data("CompileTime")
    return int(found[0]) if found else 0


def fallbacks() -> list[str]:
    """Operations that XLA left to the processor."""
    import torch_xla.debug.metrics as met

    return sorted(name for name in met.counter_names() if name.startswith("aten::") and name != ALLOWED)


class Compilations(TrainerCallback):  # type: ignore[misc]
    """Counts after every step, and warns of growth after the first ones, with the shapes that are new.

    What is not training is counted apart, by `during`; it may compile when it is done for the first time.
    """

    def __init__(self) -> None:
        self.apart: dict[str, int] = {}
        self.counts: list[int] = []
        self.late: list[dict[str, Any]] = []
        self.shapes: dict[tuple[tuple[str, tuple[int, ...]], ...], int] = {}
        self.step = self.began = 0

    def saw(self, batch: dict[str, Any]) -> None:
        """Note the shapes of a batch of the step that is being made."""
        self.shapes.setdefault(
            tuple((name, tuple(value.shape)) for name, value in sorted(batch.items())), self.step + 1
        )

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Count what is compiled inside as compiled for `what`; what training left to do is done before."""
        import torch_xla

        torch_xla.sync()
        before, again = compiled(), what in self.apart
        yield
        more = compiled() - before
        self.apart[what] = self.apart.get(what, 0) + more
        if more and again:
            self._warn(more, what, [])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step = self.began = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step, before = state.global_step, self.counts[-1] if self.counts else 0
        self.counts.append(self._training())
        if self.counts[-1] > before and self.step > self.began + WARM:
            new = [dict(shapes) for shapes, step in self.shapes.items() if step == self.step]
            self._warn(self.counts[-1] - before, "training", new)

    def record(self) -> dict[str, Any]:
        """For the train record: programs of training, in all and after each step, those of the rest, and late ones."""
        return {
            "compilations": self._training(),
            "after_each_step": self.counts,
            "apart": self.apart,
            "late": self.late,
            "fallbacks": fallbacks(),
            "shapes": [dict(shapes) for shapes in self.shapes],
        }

    def _training(self) -> int:
        return compiled() - sum(self.apart.values())

    def _warn(self, more: int, what: str, new: list[dict[str, Any]]) -> None:
        self.late.append({"step": self.step, "for": what, "compilations": more, "shapes": new})
        said = "; ".join(", ".join(f"{name} {list(size)}" for name, size in shapes.items()) for shapes in new)
        words = f"XLA compiled {more} more program(s) for {what} in step {self.step}"
        print(f"warning: {words}: {said or 'no batch has a new shape'}", flush=True)
