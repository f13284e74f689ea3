"""What an estimate says: bytes by what they are for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of a training step on one device; `host` in the memory of each machine (offload).

    `gradients` are those that are there at the peak. `overhead` is what is exchanged, widened and reserved without
    use, and the driver's own. The measured peak is expected within `total` x (1 +- `band`).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    overhead: int
    host: int
    band: float

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.overhead
