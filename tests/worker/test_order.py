"""The order of rows: the same optimizer steps however many processes and micro batches share them."""

from __future__ import annotations

import random

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from sysml_run.worker.batches import SimilarLengths

LENGTHS = [random.Random(1).randint(5, 500) for _ in range(1024)]


def steps(micro: int, accumulation: int, world: int, epoch: int = 0) -> list[list[int]]:
    """Row numbers of each optimizer step, as accelerate deals them out."""
    order = SimilarLengths(LENGTHS, micro * accumulation * world, 42)
    order.set_epoch(epoch)
    shards = [[*BatchSamplerShard(BatchSampler(order, micro, False), world, rank)] for rank in range(world)]
    count = len(shards[0]) // accumulation
    parts = ([shard[at * accumulation : (at + 1) * accumulation] for shard in shards] for at in range(count))
    return [sorted(row for shard in part for batch in shard for row in batch) for part in parts]


@pytest.mark.parametrize("shares", [(4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4), (1, 1, 8)])
def test_steps_do_not_depend_on_who_shares_them(shares: tuple[int, int, int]) -> None:
    alone = steps(8, 1, 1)
    assert steps(*shares) == alone
    assert sorted(row for step in alone for row in step) == [*range(1024)]
    assert steps(*shares, epoch=1) == steps(8, 1, 1, epoch=1) != alone


def padding(size: int) -> float:
    """Computed positions for each token, where all rows of a step are padded to its longest."""
    order = [*SimilarLengths(LENGTHS, size, 42)]
    parts = [order[at : at + size] for at in range(0, len(order), size)]
    return sum(max(LENGTHS[row] for row in part) * len(part) for part in parts) / sum(LENGTHS)


def test_rows_of_a_small_step_are_of_similar_length() -> None:
    assert padding(4) < 1.1
    assert padding(8) < 1.1


def test_a_large_step_is_a_fair_sample() -> None:
    order = [*SimilarLengths(LENGTHS, 128, 42)]
    means = [sum(LENGTHS[row] for row in order[at : at + 128]) / 128 for at in range(0, 1024, 128)]
    assert max(means) < 1.3 * min(means)
    lengths = [LENGTHS[row] for row in order[:128]]
    assert lengths == sorted(lengths, reverse=True)  # micro batches of it, and processes at the same time, are alike
