"""Rows -> padded tensors; answers stand at the right end, so that only their positions need logits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

IGNORED = -100


class Collator:
    """Pads on the left to the longest row of the batch, or to `length` tokens where one is given.

    Gives `input_ids`, `attention_mask`, `position_ids` and, where the rows have them, `labels`, each (rows, length)
    int64. The first token of a row is never predicted, so its label is dropped from the count too.
    """

    def __init__(self, pad_token_id: int, length: int = 0) -> None:
        self.pad, self.length = pad_token_id, length

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        length = max(self.length, *(len(row["input_ids"]) for row in rows))
        shift = [length - len(row["input_ids"]) for row in rows]
        ids = torch.tensor([[self.pad] * gap + list(row["input_ids"]) for gap, row in zip(shift, rows, strict=True)])
        mask = (torch.arange(length) >= torch.tensor(shift)[:, None]).long()
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        if "labels" in rows[0]:
            labels = ([IGNORED] * (gap + 1) + list(row["labels"])[1:] for gap, row in zip(shift, rows, strict=True))
            batch["labels"] = torch.tensor(list(labels))
        return batch


class SimilarLengths:
    """Row numbers in an order whose consecutive `size` rows are of similar length, so that little padding is computed.

    Rows are shuffled by seed and epoch, sorted by length within groups of 16 batches, and the batches shuffled again:
    the order depends on nothing else, so that a resumed epoch goes on as the first one would have.
    """

    GROUP = 16

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self.lengths, self.size, self.seed, self.epoch = lengths, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        order, group = draw.sample(range(len(self)), len(self)), self.GROUP * self.size
        parts = [order[at : at + group] for at in range(0, len(order), group)]
        rows = [row for part in parts for row in sorted(part, key=lambda row: -self.lengths[row])]
        batches = [rows[at : at + self.size] for at in range(0, len(rows), self.size)]
        last = [batches.pop()] if len(batches[-1]) < self.size else []
        draw.shuffle(batches)
        return iter([row for batch in batches + last for row in batch])


def answer_loss(model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """Negative log-likelihood of every label, (rows, kept) float32 with 0 where there is none, and the model's output.

    Logits are computed from the first labelled position on: the prompt's, most of a row, would be thrown away.
    """
    import torch

    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    columns = (labels != IGNORED).any(0).nonzero()
    first = int(columns[0]) if len(columns) else max(1, labels.shape[1] - 1)
    output = model(**inputs, use_cache=False, logits_to_keep=labels.shape[1] - first + 1)
    kept = labels[:, first:]
    logits = output.logits[:, :-1].float()
    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), kept.flatten(), reduction="none", ignore_index=IGNORED
    )
    return flat.view_as(kept), output


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, each of at most `tokens` padded tokens (or one row)."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
