"""The validation loss while training, in batches of one shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sysml_run.worker.batches import IGNORED

from . import device
from .loss import answer_loss


def loss(trainer: Any) -> float:
    """The mean loss of a labelled token over the validation rows: the same number as the evaluate stage's."""
    import torch
    import torch_xla

    total = torch.zeros((), device="xla")
    count = 0
    for batch in _batches(trainer):
        count += int((batch["labels"] != IGNORED).sum())
        placed = {name: _divided(value) for name, value in batch.items()}
        with torch.no_grad():
            losses, _ = answer_loss(trainer.model, placed)
        total = total + losses.sum()
        torch_xla.sync()
    return float(total) / max(1, count)


def _batches(trainer: Any) -> Iterator[dict[str, Any]]:
    """As many rows as in training; the last ones filled up with a row that does not count."""
    rows, size = trainer.eval_dataset, trainer.args.per_device_train_batch_size
    picked = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]
    order = sorted(picked, key=lambda row: len(row["input_ids"]))
    silent = {"input_ids": picked[0]["input_ids"][:1], "labels": [IGNORED]}
    for start in range(0, len(order), size):
        some = order[start : start + size]
        yield trainer.data_collator([*some, *[silent] * (size - len(some))])


def _divided(tensor: Any) -> Any:
    import torch_xla.distributed.spmd as xs

    placed = tensor.to("xla")
    xs.mark_sharding(placed, device.mesh(), (device.AXIS, None))
    return placed
