"""Rows -> padded tensors; answers stand at the right end, so that only their positions need logits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

IGNORED = -100


class Collator:
    """Pads on the left to the first of `lengths` that holds the longest row of the batch, or to that row's own.

    Gives `input_ids`, `attention_mask`, `position_ids` and, where the rows have them, `labels`, each (rows, length)
    int64, and `rows` (rows), the numbers of rows that have one in `row`. The first token of a row is never predicted,
    so its label is dropped from the count too.

    Packed rows (those with `seq_lengths`) get no `attention_mask`: transformers then takes from `position_ids`, which
    begin at 0 with every document and are 0 for padding, that no token attends across, in full and sliding windows.
    `flat` lays packed rows end to end, without padding, in one: of several transformers does not tell flash attention.
    """

    def __init__(self, pad_token_id: int, *lengths: int, flat: bool = False) -> None:
        self.pad, self.lengths, self.flat = pad_token_id, sorted(lengths), flat

    def padded(self, longest: int) -> int:
        """The length of a batch whose longest row has this many tokens."""
        return next((length for length in self.lengths if length >= longest), longest)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        numbers = [row["row"] for row in rows if "row" in row]
        if self.flat and "seq_lengths" in rows[0]:
            rows = [_joined(rows)]
        length = self.padded(max(len(row["input_ids"]) for row in rows))
        shift = [length - len(row["input_ids"]) for row in rows]
        ids = torch.tensor([[self.pad] * gap + list(row["input_ids"]) for gap, row in zip(shift, rows, strict=True)])
        batch = {"input_ids": ids} | ({"rows": torch.tensor(numbers)} if numbers else {})
        if "seq_lengths" in rows[0]:
            each = ([0] * gap + positions(row["seq_lengths"]) for gap, row in zip(shift, rows, strict=True))
            batch["position_ids"] = torch.tensor(list(each))
        else:
            batch["attention_mask"] = mask = (torch.arange(length) >= torch.tensor(shift)[:, None]).long()
            batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        if "labels" in rows[0]:
            labels = ([IGNORED] * (gap + 1) + list(row["labels"])[1:] for gap, row in zip(shift, rows, strict=True))
            batch["labels"] = torch.tensor(list(labels))
        return batch


def _joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """One row of all; the first token of each is predicted no more than before."""
    joined = {name: [item for row in rows for item in row[name]] for name in rows[0] if name != "row"}
    if "labels" in joined:
        joined["labels"] = [label for row in rows for label in [IGNORED, *row["labels"][1:]]]
    return joined


def positions(lengths: Sequence[int]) -> list[int]:
    """0, 1, … of documents of these lengths, one behind the other."""
    return [position for length in lengths for position in range(length)]


def tokens(batch: Mapping[str, Any]) -> int:
    """How many tokens of the batch are no padding. In a packed batch padding is a 0 in front of another 0."""
    if "attention_mask" in batch:
        return int(batch["attention_mask"].sum())
    places = batch["position_ids"]
    return int(places.numel() - ((places[:, :-1] == 0) & (places[:, 1:] == 0)).sum())


def buckets(lengths: Any, most: int) -> list[int]:
    """At most 8 lengths to pad to: as many rows fall to each as can be, in multiples of 8, and `most` for any row."""
    import numpy as np

    edges = np.quantile(np.asarray(lengths), [part / 8 for part in range(1, 8)], method="higher")
    return sorted({min(most, -(-int(edge) // 8) * 8) for edge in edges} | {most})


class SimilarLengths:
    """Row numbers in an order whose consecutive `size` rows are of similar length, so that little padding is computed.

    `size` is the rows of an optimizer step, however many processes and micro batches share them: all see the same
    steps. Rows are shuffled by seed and epoch, sorted by length within groups of 16 steps (fewer where they are large,
    so that a step stays a fair sample), and the steps shuffled again: the order depends on nothing else, so that a
    resumed epoch goes on as the first one would have.
    """

    STEPS, ROWS = 16, 128  # of a group, at most; one step at least

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self.lengths, self.size, self.seed, self.epoch = lengths, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        order, group = draw.sample(range(len(self)), len(self)), self.size * self._steps()
        parts = [order[at : at + group] for at in range(0, len(order), group)]
        rows = [row for part in parts for row in sorted(part, key=lambda row: -self.lengths[row])]
        batches = [rows[at : at + self.size] for at in range(0, len(rows), self.size)]
        last = [batches.pop()] if len(batches[-1]) < self.size else []
        draw.shuffle(batches)
        return iter([row for batch in batches + last for row in batch])

    def _steps(self) -> int:
        return max(1, min(self.STEPS, self.ROWS // self.size))


def answer_loss(model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """Negative log-likelihood of every label, (rows, kept) float32, 0 where there is none, and the model's output."""
    kept, logits, output = answer_logits(model, batch)
    return label_losses(kept, logits), output


def answer_logits(model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Labels (rows, kept), the float32 logits (rows, kept, words) that predict them, and the model's output.

    Logits are computed from the first labelled position on (of packed rows at the labelled positions): the prompt's,
    most of a row, would be thrown away.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    columns = (labels != IGNORED).any(0).nonzero().flatten()
    if "attention_mask" in batch:
        first = int(columns[0]) if len(columns) else max(1, labels.shape[1] - 1)
        output = model(**inputs, use_cache=False, logits_to_keep=labels.shape[1] - first + 1)
        return labels[:, first:], output.logits[:, :-1].float(), output
    output = model(**inputs, use_cache=False, logits_to_keep=columns - 1)  # answers of packed rows stand anywhere
    return labels[:, columns], output.logits.float(), output


def label_losses(labels: Any, logits: Any) -> Any:
    """Negative log-likelihood of every label, in the shape of `labels`, with 0 where there is none."""
    import torch

    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    return flat.view_as(labels)


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
