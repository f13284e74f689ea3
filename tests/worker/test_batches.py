"""Padded batches and the answer loss, held against the plain loss of transformers on right-padded rows."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from sysml_run.worker.batches import IGNORED, Collator, answer_loss, buckets, by_length, tokens

VOCABULARY = 96
PAD = 2
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS: dict[str, Callable[[str], Any]] = {
    "llama": lambda attention: LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation=attention)),
    "mistral": lambda attention: MistralForCausalLM(
        MistralConfig(**SIZES, sliding_window=5, attn_implementation=attention)
    ),
    "mixtral": lambda attention: MixtralForCausalLM(
        MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, attn_implementation=attention)
    ),
}


@pytest.fixture(params=[(name, attention) for name in MODELS for attention in ("eager", "sdpa")], ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    name, attention = request.param
    return MODELS[name](attention).eval()


def row(length: int, prompt: int, seed: int = 0) -> dict[str, list[int]]:
    """`prompt` tokens that are not in the loss, and then the answer."""
    drawn = random.Random(f"{length} {prompt} {seed}")
    ids = [drawn.randrange(VOCABULARY) for _ in range(length)]
    return {"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]}


def several_turns() -> dict[str, list[int]]:
    made = row(14, 0, 7)
    return {**made, "labels": [IGNORED if at in (0, 1, 5, 6, 7, 12) else it for at, it in enumerate(made["labels"])]}


BATCHES = {
    "one row": [row(9, 4)],
    "all in the loss": [row(6, 0), row(11, 0)],
    "answers of different lengths": [row(20, 15), row(7, 2), row(12, 11), row(3, 1)],
    "several turns": [several_turns(), row(5, 3), row(17, 16)],
    "two tokens": [row(2, 1), row(2, 0)],
    "one row without labels": [row(8, 8), row(6, 4)],
}


def plain_loss(model: Any, rows: list[dict[str, list[int]]]) -> Any:
    """Mean loss as transformers counts it, padded on the right."""
    length = max(len(each["input_ids"]) for each in rows)
    gaps = [length - len(each["input_ids"]) for each in rows]
    ids = torch.tensor([each["input_ids"] + [PAD] * gap for each, gap in zip(rows, gaps, strict=True)])
    labels = torch.tensor([each["labels"] + [IGNORED] * gap for each, gap in zip(rows, gaps, strict=True)])
    mask = torch.tensor([[1] * (length - gap) + [0] * gap for gap in gaps])
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def counted(rows: list[dict[str, list[int]]]) -> int:
    return sum(label != IGNORED for each in rows for label in each["labels"][1:])


@pytest.mark.parametrize("name", BATCHES)
@torch.no_grad()
def test_the_loss_is_that_of_transformers(name: str, model: Any) -> None:
    rows = BATCHES[name]
    batch = Collator(PAD)(rows)
    losses, output = answer_loss(model, batch)
    assert (batch["labels"] != IGNORED).sum() == counted(rows)
    assert (losses != 0).sum() == counted(rows)
    assert losses.shape == (len(rows), output.logits.shape[1] - 1)
    assert float(losses.sum() / counted(rows)) == pytest.approx(float(plain_loss(model, rows)), abs=1e-5)


@pytest.mark.parametrize("name", BATCHES)
def test_the_gradient_is_that_of_transformers(name: str, model: Any) -> None:
    rows = BATCHES[name]
    losses, _ = answer_loss(model, Collator(PAD)(rows))
    (losses.sum() / counted(rows)).backward()
    found = {each: parameter.grad.clone() for each, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    plain_loss(model, rows).backward()
    for each, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[each], parameter.grad, atol=1e-5, rtol=1e-4)


def test_a_row_has_the_same_loss_in_any_batch_and_any_padding(model: Any) -> None:
    rows = BATCHES["answers of different lengths"]
    with torch.inference_mode():
        together = answer_loss(model, Collator(PAD)(rows))[0].sum(1)
        padded = answer_loss(model, Collator(PAD, 40)(rows))[0].sum(1)
        alone = torch.stack([answer_loss(model, Collator(PAD)([each]))[0].sum() for each in rows])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-5)


def test_nothing_but_the_answer_gets_logits(model: Any) -> None:
    _, output = answer_loss(model, Collator(PAD)([row(30, 26), row(12, 10)]))
    assert output.logits.shape[1] == 4 + 1
    assert bool(torch.isfinite(output.logits).all())


@torch.no_grad()
def test_rows_without_any_label_have_no_loss(model: Any) -> None:
    for rows in ([row(5, 5), row(3, 3)], [row(1, 1)], [row(1, 0)]):
        losses, _ = answer_loss(model, Collator(PAD)(rows))
        assert float(losses.sum()) == 0.0


def test_half_precision_logits_are_summed_in_32_bits() -> None:
    torch.manual_seed(0)
    model = MODELS["llama"]("eager").bfloat16()
    losses, output = answer_loss(model, Collator(PAD)([row(9, 4)]))
    assert output.logits.dtype == torch.bfloat16
    assert losses.dtype == torch.float32


def test_collator() -> None:
    batch = Collator(PAD)(
        [{"input_ids": [5, 6, 7], "labels": [5, IGNORED, 7]}, {"input_ids": [8, 9], "labels": [8, 9]}]
    )
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [PAD, 8, 9]],
        "attention_mask": [[1, 1, 1], [0, 1, 1]],
        "position_ids": [[0, 1, 2], [0, 0, 1]],
        "labels": [[IGNORED, IGNORED, 7], [IGNORED, IGNORED, 9]],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_pad_token_inside_a_row_is_a_token_like_others() -> None:
    batch = Collator(PAD)([{"input_ids": [PAD, 6, PAD], "labels": [PAD, 6, PAD]}])
    assert batch["attention_mask"].tolist() == [[1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 6, PAD]]


def test_a_fixed_length_is_a_least_length() -> None:
    assert Collator(PAD, 6)([row(4, 1)])["input_ids"].shape == (1, 6)
    assert Collator(PAD, 6)([row(9, 1), row(2, 1)])["input_ids"].shape == (2, 9)
    assert "labels" not in Collator(PAD)([{"input_ids": [1]}])


def packed(*rows: dict[str, list[int]]) -> dict[str, list[int]]:
    """The rows in one sequence, as the prepared set has them."""
    return {
        "input_ids": [id for each in rows for id in each["input_ids"]],
        "labels": [label for each in rows for label in [IGNORED, *each["labels"][1:]]],
        "seq_lengths": [len(each["input_ids"]) for each in rows],
    }


PACKED = {
    "one sequence": [packed(row(9, 4), row(20, 15), row(2, 1), row(12, 0))],
    "one document": [packed(row(17, 3))],
    "padded sequences": [
        packed(row(9, 4), several_turns()),
        packed(row(30, 26), row(6, 0), row(7, 2)),
        packed(row(5, 3)),
    ],
}


def documents(sequence: dict[str, list[int]]) -> list[dict[str, list[int]]]:
    found, at = [], 0
    for length in sequence["seq_lengths"]:
        found.append({name: sequence[name][at : at + length] for name in ("input_ids", "labels")})
        at += length
    return found


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("lengths", [(), (64,)])
@torch.no_grad()
def test_packed_rows_do_not_see_each_other(name: str, lengths: tuple[int, ...], model: Any) -> None:
    batch = Collator(PAD, *lengths)(PACKED[name])
    inputs = {each: batch[each] for each in ("input_ids", "position_ids")}
    found = model(**inputs, use_cache=False).logits
    for sequence, logits in zip(PACKED[name], found, strict=True):
        at = batch["input_ids"].shape[1] - len(sequence["input_ids"])
        for each in documents(sequence):
            length = len(each["input_ids"])
            alone = model(input_ids=torch.tensor([each["input_ids"]]), use_cache=False).logits[0]
            torch.testing.assert_close(logits[at : at + length], alone, atol=1e-5, rtol=1e-5)
            at += length


@pytest.mark.parametrize("name", PACKED)
def test_packed_rows_have_the_loss_and_gradient_of_rows(name: str, model: Any) -> None:
    rows = [each for sequence in PACKED[name] for each in documents(sequence)]
    ways = [Collator(PAD)(PACKED[name]), Collator(PAD, flat=True)(PACKED[name]), Collator(PAD)(rows)]
    for batch in ways:
        losses, _ = answer_loss(model, batch)
        assert tokens(batch) == sum(len(each["input_ids"]) for each in rows)
        assert (batch["labels"] != IGNORED).sum() == counted(rows)
        (losses.sum() / counted(rows)).backward()
    # all ways added up are so many times one of them
    both = {each: parameter.grad.clone() for each, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    losses, _ = answer_loss(model, Collator(PAD)(PACKED[name]))
    (losses.sum() / counted(rows)).backward()
    for each, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(both[each], len(ways) * parameter.grad, atol=1e-5, rtol=1e-4)


def test_the_collator_of_packed_rows() -> None:
    batch = Collator(PAD)([packed(row(3, 1), row(2, 1)), packed(row(2, 0))])
    assert set(batch) == {"input_ids", "position_ids", "labels"}
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 0, 1]]
    assert batch["input_ids"][1, :3].tolist() == [PAD] * 3
    assert batch["labels"][1].tolist() == [IGNORED] * 4 + [row(2, 0)["labels"][1]]
    assert tokens(batch) == 7


def test_flat_packed_rows_are_one_without_padding() -> None:
    batch = Collator(PAD, 4, flat=True)([packed(row(3, 1), row(2, 1)), packed(row(2, 0))])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["labels"][0, -2:].tolist() == [IGNORED, row(2, 0)["labels"][1]]
    assert tokens(batch) == 7
    assert Collator(PAD, flat=True)([row(3, 1), row(2, 1)])["input_ids"].shape == (2, 3), "those not packed stay rows"


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300))
def test_buckets(lengths: list[int]) -> None:
    found = buckets(lengths, 512)
    assert len(found) <= 8
    assert found[-1] == 512
    assert all(length % 8 == 0 for length in found)
    collate = Collator(PAD, *found)
    assert all(length <= collate.padded(length) for length in lengths)
    assert {collate.padded(length) for length in lengths} <= set(found)
    assert Collator(PAD, *found).padded(600) == 600


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 600))
def test_batches_by_length(lengths: list[int], tokens: int) -> None:
    batches = list(by_length(lengths, tokens))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    order = [lengths[number] for batch in batches for number in batch]
    assert order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or max(lengths[number] for number in batch) * len(batch) <= tokens
