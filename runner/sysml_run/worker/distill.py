"""What a teacher predicts, kept as its likeliest tokens and the share of all others, and how far a model is from it.

All other tokens are one more outcome. Sharing their probability out among the kept ones instead would teach a model
to be surer than its teacher (Anshumann et al. 2025, https://arxiv.org/abs/2503.16870).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .batches import IGNORED, label_losses

IDS, LOGPROBS, OFFSETS = "ids.npy", "logprobs.npy", "offsets.npy"
LEAST = -1e4  # nats; in place of the logarithm of nothing, whose product with nothing is no number


def likeliest(scaled: Any, k: int) -> tuple[Any, Any]:
    """The `k` likeliest words (positions, k) and the logarithms of their probabilities (positions, k + 1).

    `scaled` are logits (positions, words), divided by the temperature already; the last logarithm is that of all other
    words together.
    """
    import torch

    total = scaled.logsumexp(-1, keepdim=True)
    top, ids = scaled.topk(k)
    rest = scaled.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    return ids, (torch.cat([top, rest], -1) - total).clamp(min=LEAST)


def divergence(logits: Any, ids: Any, logprobs: Any, temperature: float) -> Any:
    """KL(teacher || model) in nats at each position, (positions), both softened by the temperature.

    `logits` (positions, words) are the model's; `ids` and `logprobs` are what `likeliest` keeps of the teacher. Where
    it keeps every word this is the divergence of the whole predictions, else a lower bound of it, 0 where they agree
    in the words kept. Gradients are to be multiplied by temperature^2 to be as large as those of the labels' loss
    (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
    """
    import torch

    scaled = logits / temperature
    total = scaled.logsumexp(-1, keepdim=True)
    own = scaled.gather(-1, ids) - total
    if ids.shape[-1] < scaled.shape[-1]:
        rest = scaled.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - total
        own = torch.cat([own, rest], -1)
    else:
        logprobs = logprobs[:, :-1]
    return (logprobs.exp() * (logprobs - own)).sum(-1)


def taught_losses(
    labels: Any, logits: Any, ids: Any, logprobs: Any, *, alpha: float, temperature: float
) -> tuple[Any, Any]:
    """What is learned from at every label, (rows, kept), 0 where there is none, and the sums of its two parts.

    alpha * temperature^2 * KL(teacher || model) + (1 - alpha) * cross-entropy; the sums are of the cross-entropy and
    of the KL as they are. `logits` (rows, kept, words) predict `labels` (rows, kept); `ids` and `logprobs` are of the
    labels that are not IGNORED, row by row.
    """
    import torch

    plain, known = label_losses(labels, logits), labels != IGNORED
    apart = divergence(logits[known], ids, logprobs, temperature)
    mixed = torch.zeros_like(plain).masked_scatter(known, alpha * temperature**2 * apart)
    return (1 - alpha) * plain + mixed, torch.stack([plain.detach().sum(), apart.detach().sum()])


class Predictions:
    """A teacher's, of every row in the order of the rows, on disk and memory-mapped.

    `ids` (positions, k) int32 and `logprobs` (positions, k + 1) float32; row i has the positions from `offsets[i]` to
    `offsets[i + 1]`, those of its tokens that count in the loss.
    """

    def __init__(self, folder: Path, mode: Any = "r") -> None:
        import numpy as np

        self.ids, self.logprobs = (np.load(folder / name, mmap_mode=mode) for name in (IDS, LOGPROBS))
        self.offsets = np.load(folder / OFFSETS)

    @classmethod
    def create(cls, folder: Path, counts: Any, k: int) -> Predictions:
        """Empty ones, for rows with so many positions each, in a folder that is made."""
        import numpy as np

        folder.mkdir(parents=True)
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        kinds = ((IDS, np.int32, k), (LOGPROBS, np.float32, k + 1))
        for name, kind, width in kinds:
            shape = int(offsets[-1]), width
            np.lib.format.open_memmap(folder / name, "w+", kind, shape)  # type: ignore[no-untyped-call]
        np.save(folder / OFFSETS, offsets)
        return cls(folder, "r+")

    def put(self, rows: Sequence[int], ids: Any, logprobs: Any) -> None:
        """Write those of some rows: tensors on the processor, their positions one behind the other."""
        at = 0
        for row in rows:
            start, stop = self.offsets[row], self.offsets[row + 1]
            self.ids[start:stop] = ids.numpy()[at : at + stop - start]
            self.logprobs[start:stop] = logprobs.numpy()[at : at + stop - start]
            at += stop - start

    def of(self, rows: Sequence[int]) -> tuple[Any, Any]:
        """Those of some rows as tensors, int64 and float32, their positions one behind the other."""
        import numpy as np
        import torch

        spans = [slice(self.offsets[row], self.offsets[row + 1]) for row in rows]
        ids, logprobs = (np.concatenate([array[span] for span in spans]) for array in (self.ids, self.logprobs))
        return torch.from_numpy(ids).long(), torch.from_numpy(logprobs)

    def flush(self) -> None:
        self.ids.flush()
        self.logprobs.flush()
