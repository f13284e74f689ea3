"""What ZeRO leaves on each device, against the paper's table and what DeepSpeed's own estimators print."""

from __future__ import annotations

import pytest

from sysml_run import counts
from sysml_run.estimate.step import State

GB, GIB, MIB = 10**9, 2**30, 2**20

# Rajbhandari et al. 2020 (arXiv 1910.02054), table 1: GB on each device with Adam in mixed precision, by stage.
TABLE = {
    7.5: {
        1: (120, 120, 120),
        4: (52.5, 41.3, 30),
        16: (35.6, 21.6, 7.5),
        64: (31.4, 16.6, 1.88),
        256: (30.4, 15.4, 0.47),
        1024: (30.1, 15.1, 0.12),
    },
    128: {
        1: (2048, 2048, 2048),
        4: (896, 704, 512),
        16: (608, 368, 128),
        64: (536, 284, 32),
        256: (518, 263, 8),
        1024: (513, 257, 2),
    },
    1000: {
        1: (16000, 16000, 16000),
        4: (7000, 5500, 4000),
        16: (4750, 2875, 1000),
        64: (4187, 2218, 250),
        256: (4046, 2054, 62.5),
        1024: (4011, 2013, 15.6),
    },
}
ROWS = [(size, world, *row) for size, rows in TABLE.items() for world, row in rows.items()]


def each(parameters: int, widths: tuple[int, int, int], stage: int, world: int) -> State:
    names = ("weights", "gradients", "optimizer")
    whole = {name: width * parameters for name, width in zip(names, widths, strict=True)}
    return State(**counts.divided(whole, stage, world))


@pytest.mark.parametrize(("billions", "world", "first", "second", "third"), ROWS)
def test_the_table_of_the_zero_paper(billions: float, world: int, first: float, second: float, third: float) -> None:
    """To the digit that is printed; the paper cuts some figures off and rounds others."""
    for stage, printed in ((1, first), (2, second), (3, third)):
        own = each(round(billions * GB), (2, 2, 12), stage, world)
        size = (own.weights + own.gradients + own.optimizer) / GB
        digits = len(str(printed).partition(".")[2])
        unit = 10.0**-digits
        assert abs(size - printed) < unit * 1.0001, (size, printed)


# DeepSpeed's documentation (docs/code-docs/source/memory.rst): t5-3b on eight cards, t5-large on four.
@pytest.mark.parametrize(
    ("parameters", "largest", "stage", "offloaded", "world", "printed", "unit"),
    [
        (2_851_000_000, 0, 2, True, 8, 5.31, GIB),
        (2_851_000_000, 32_000_000, 3, True, 8, 0.78, GIB),
        (2_851_000_000, 32_000_000, 3, False, 8, 6.09, GIB),
        (737_670_000, 32_900_000, 3, False, 4, 3291, MIB),
        (737_670_000, 32_900_000, 3, True, 4, 477, MIB),
    ],
)
def test_what_deepspeed_prints(
    parameters: int, largest: int, stage: int, offloaded: bool, world: int, printed: float, unit: int
) -> None:
    """It counts gradients in fp32, as they are in the optimizer's step, and one layer whole with its gradients."""
    own = each(parameters, (2, 4, 12), stage, world)
    size = own.weights + (0 if offloaded else own.gradients + own.optimizer) + 4 * largest
    digits = 2 if unit == GIB else 0
    assert round(size / unit - (0 if digits else 0.5), digits) == printed
