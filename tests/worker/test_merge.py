"""What a merge refuses: logits that are not the adapter's, and a loss that training on a quantized base had not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.worker import merge


@pytest.fixture
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    return make_recipe(
        datasets=[{"path": "rows.jsonl", "type": "messages"}], model={"base_model": "tiny:llama", "dtype": "float32"}
    )


def test_logits_that_are_near_enough(recipe: Recipe) -> None:
    wanted = [torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([[0.0, 3.0]])]
    got = [each.clone() for each in wanted]
    got[0][1] = torch.tensor([1.995, 1.0])
    found = merge.prove(recipe, got, wanted)
    assert found["max_logit_difference"] == pytest.approx(0.005, abs=1e-6)
    assert (found["tolerance"], found["top_token_agreement"], found["rows"]) == (1e-2, 1.0, 2)


@pytest.mark.parametrize("other", [2.0, math.nan])
def test_logits_that_are_not(other: float, recipe: Recipe) -> None:
    wanted, got = [torch.tensor([[1.0, 2.5]])], [torch.tensor([[other, 2.5]])]
    with pytest.raises(StageError, match="merged logits differ from the adapter's by"):
        merge.prove(recipe, got, wanted)


def test_likeliest_tokens_are_compared_row_by_row() -> None:
    some = [torch.eye(4), torch.eye(4)[:1]]
    others = [torch.eye(4)[[0, 1, 3, 2]], torch.eye(4)[:1]]
    assert merge.agreement(some, others) == (0.5 + 1.0) / 2


def moved(**facts: Any) -> dict[str, Any]:
    return {"load": "nf4", "loss": 1.0, "merged_loss": 1.2, "loss_difference": 0.2, "tolerance": 0.2} | facts


def test_a_loss_that_is_kept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    merge.kept(moved())
    words = "merge: loss 1.000 beside the base in nf4, 1.200 merged into it unquantized\n"
    assert capsys.readouterr().out == words
    merge.kept(moved(loss_difference=-3.0))


@pytest.mark.parametrize("gone", [0.21, math.nan])
def test_a_loss_that_is_not_kept_stops_the_merge(gone: float) -> None:
    with pytest.raises(StageError, match="which loses what training gained") as error:
        merge.kept(moved(loss_difference=gone))
    assert error.value.hint == (
        "load the adapter in model/ on the base in nf4, or train it on the unquantized base: "
        "--set quantization.load=null"
    )
