"""What is measured of a copy: which tokens count, what is compared, and what is refused."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sysml_run.errors import StageError
from sysml_run.worker import proof

ROW = {"input_ids": [5, 1, 2, 3], "labels": [-100, -100, 2, 3], "prompt_len": 2, "prompt": "a", "completion": "b"}


class Counting:
    """Holds the token after the last one to be likeliest: 1 after 0, 2 after 1, …"""

    name = "counting"
    load_seconds = 0.5

    def logits(self, ids: Sequence[int], last: int) -> Any:
        return 3.0 * torch.nn.functional.one_hot(torch.tensor(ids[-last:]) + 1, 9).float()

    def go_on(self, ids: Sequence[int], new: int) -> None:
        self.made = new

    def answers(self, prompts: Sequence[Sequence[int]], new: int) -> list[str]:
        return ["b" for _ in prompts]

    def tokens(self, text: str) -> list[int] | None:
        return [5, 1]


class Broken(Counting):
    """Computes nothing that is a number."""

    def logits(self, ids: Sequence[int], last: int) -> Any:
        return super().logits(ids, last) * math.nan


def test_only_the_tokens_of_answers_count() -> None:
    nats, likeliest = proof.likelihoods(Counting(), ROW)
    right = math.log(math.exp(3) + 8) - 3
    assert nats == pytest.approx([right, right])
    assert likeliest == [2, 3]
    other = ROW | {"input_ids": [5, 1, 2, 7], "labels": [-100, -100, 2, 7]}
    assert proof.likelihoods(Counting(), other) == (pytest.approx([right, right + 3]), [2, 3])
    assert proof.likelihoods(Counting(), ROW | {"labels": [-100] * 4}) == ([], [])


def test_a_reading(make_recipe: Any) -> None:
    recipe = make_recipe(
        datasets=[{"path": "rows.jsonl", "type": "messages"}], evaluation={"generate": {}, "metrics": ["exact_match"]}
    )
    case = proof.case(recipe, [ROW, ROW], [1])
    found = proof.read(Counting(), case, recipe)
    assert found.figures["metrics"] == {"exact_match": 1.0}
    assert found.figures["perplexity"] == pytest.approx((math.exp(3) + 8) / math.exp(3))
    assert found.figures["same_token_ids"] == 1
    assert found.smoke == {"prompt": "a", "answer": "b"}
    assert case.context == 2 + max(case.new, proof.SPEED + 1) + 1
    lost = proof.read(Broken(), case, recipe)
    assert lost.figures["perplexity"] == math.inf
    with pytest.raises(StageError, match="there are no validation rows"):
        proof.case(recipe, [], [])


def test_very_long_rows_are_left_out_unless_there_is_no_other(make_recipe: Any) -> None:
    recipe = make_recipe(datasets=[{"path": "rows.jsonl", "type": "messages"}])
    long = ROW | {"input_ids": [1] * 5000, "prompt_len": 4999}
    found = proof.case(recipe, [long, ROW], [0, 1])
    assert (found.rows, found.asked) == ([ROW], [ROW])
    assert proof.case(recipe, [long], [0]).rows == [long]


def test_two_readings_are_compared() -> None:
    whole = proof.Reading([[0.1, 0.1]], [[1, 2]], {"perplexity": 2.0}, {})
    small = proof.Reading([[0.2, 0.1]], [[1, 3]], {"perplexity": 2.1}, {})
    assert proof.compared(small, whole) == {
        "rows": 1,
        "tokens": 2,
        "perplexity_increase": pytest.approx(0.05),
        "top_token_agreement": 0.5,
    }


@pytest.mark.parametrize(("risen", "limit", "kept"), [(0.1, 0.1, True), (0.11, 0.1, False), (9.0, None, True)])
def test_the_limit(risen: float, limit: float | None, kept: bool) -> None:
    figures = {"perplexity_increase": risen, "perplexity": 2 * (1 + risen), "unquantized": {"perplexity": 2.0}}
    if kept:
        proof.refuse("copy", figures, limit)
        return
    with pytest.raises(StageError) as error:
        proof.refuse("copy", figures, limit)
    assert error.value.message == "copy: perplexity rises from 2 to 2.22, by 11.0 % where 10 % are allowed"


def test_what_is_no_number_is_never_kept() -> None:
    figures = {"perplexity_increase": math.nan, "perplexity": math.nan, "unquantized": {"perplexity": 2.0}}
    with pytest.raises(StageError, match="perplexity rises from 2 to nan"):
        proof.refuse("copy", figures, None)


def test_bytes_and_bits(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(10, 10), "b": torch.zeros(28)}, tmp_path / "model.safetensors")
    assert proof.parameters(tmp_path) == 128
    size = (tmp_path / "model.safetensors").stat().st_size
    assert proof.size(tmp_path, 128) == {"bytes": size, "bits_per_weight": round(size / 16, 3)}
    assert proof.size(tmp_path / "model.safetensors", 128) == proof.size(tmp_path, 128)
