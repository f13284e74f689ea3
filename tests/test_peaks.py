"""Predicted and measured memory as figures and in words, for each kind of hardware."""

from __future__ import annotations

from typing import Any

import pytest

from sysml_run import peaks

PREDICTED = {"weights": 1, "total": 2_000_000_000, "band": 0.15}


def values(accelerator: str, padding: str = "dynamic") -> dict[str, Any]:
    return {"hardware": {"accelerator": accelerator}, "prompt": {"sequence_len": 2048, "padding": padding}}


@pytest.mark.parametrize(
    ("accelerator", "memory", "figures", "words"),
    [
        (
            "cpu",
            {"predicted": PREDICTED, "measured": {"process": 2_100_000_000}, "longest_row": 2048},
            (2_000_000_000, 2_100_000_000, 1.05),
            "2.10 GB of one process, predicted 2.00 GB (1.05 times as much)",
        ),
        (
            "gpu",
            {"predicted": PREDICTED, "measured": {"process": 1, "reserved": 2, "card": 1_500_000_000}},
            (2_000_000_000, 1_500_000_000, 0.75),
            "1.50 GB of one card, predicted 2.00 GB (0.75 times as much)",
        ),
        (
            "tpu",
            {"predicted": PREDICTED, "measured": {"process": 5}},
            (2_000_000_000, None, None),
            "not told by torch_xla, predicted 2.00 GB",
        ),
        (
            "cpu",
            {"predicted": None, "measured": {"process": 700_000_000}},
            (None, 700_000_000, None),
            "0.70 GB of one process; not predicted, for the model's architecture is not known",
        ),
    ],
)
def test_figures_and_words(accelerator: str, memory: Any, figures: tuple[Any, ...], words: str) -> None:
    found = peaks.compared(memory, values(accelerator))
    assert (found["predicted"], found["measured"], found["ratio"]) == figures
    assert peaks.words(memory, values(accelerator)) == words


def test_rows_shorter_than_planned_are_said() -> None:
    memory = {"predicted": PREDICTED, "measured": {"process": 10**9}, "longest_row": 203}
    found = peaks.words(memory, values("cpu"))
    assert found == (
        "1.00 GB of one process, predicted 2.00 GB for rows of 2,048 tokens, of which the longest had 203 "
        "(0.50 times as much)"
    )
    assert "longest" not in peaks.words(memory, values("cpu", "max_length"))
