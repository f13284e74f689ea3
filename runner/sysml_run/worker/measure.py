"""What a model does on prepared rows: loss of every row, and generated answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from sysml_run.recipe import Recipe

from . import ranks
from .batches import Collator, answer_loss, by_length

TOKENS_A_BATCH = 4096
ROWS_A_BATCH = 32


@dataclass(frozen=True)
class RowLoss:
    """Summed negative log-likelihood (nats) and number of labelled tokens of one row."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.total / max(1, self.tokens)


def row_losses(
    model: Any, rows: Any, collate: Collator, tick: Callable[[int], Any] = lambda rows: None
) -> list[RowLoss]:
    """The loss of each row of a prepared split, in its order; `tick` hears how many rows were done."""
    found: dict[int, RowLoss] = {}
    for numbers in _batches(rows, collate):
        found |= zip(numbers, _losses(model, rows, numbers, collate, model.device), strict=True)
        tick(len(numbers))
    return [found[number] for number in range(len(found))]


def shared_loss(model: Any, rows: Any, collate: Collator, device: Any) -> float:
    """The mean loss of a labelled token, computed by all processes together, each with its share of the batches.

    All run the model equally often, those whose share is smaller on a batch that is not counted: with ZeRO-3 they
    gather its weights together.
    """
    deal, world = [*_batches(rows, collate)], ranks.world()
    share = deal[ranks.rank() :: world]
    found = [loss for numbers in share for loss in _losses(model, rows, numbers, collate, device)]
    if len(share) < -(-len(deal) // world):
        _losses(model, rows, deal[0], collate, device)
    nats, tokens = ranks.total(sum(loss.total for loss in found), sum(loss.tokens for loss in found))
    return nats / max(1, tokens)


def _batches(rows: Any, collate: Collator) -> Iterator[list[int]]:
    return by_length([collate.padded(length) for length in rows["length"]], TOKENS_A_BATCH)


def _losses(model: Any, rows: Any, numbers: Sequence[int], collate: Collator, device: Any) -> list[RowLoss]:
    """The losses of one batch; tensors that are made without gradients may be kept by ZeRO-3 and used in training."""
    import torch

    picked = [rows[number] for number in numbers]
    batch = collate([{key: row[key] for key in ("input_ids", "labels")} for row in picked])
    with torch.no_grad():
        losses, _ = answer_loss(model, {name: values.to(device) for name, values in batch.items()})
    counts = [sum(label != -100 for label in row["labels"][1:]) for row in picked]
    return [RowLoss(total, count) for total, count in zip(losses.sum(1).tolist(), counts, strict=True)]


def arithmetic(recipe: Recipe) -> Any:
    """The number format that the recipe's forward passes are computed in, as a context."""
    import torch

    formats = {"bf16": torch.bfloat16, "fp16": torch.float16}
    kind = "cuda" if recipe.hardware.accelerator == "gpu" else "cpu"
    chosen = formats.get(recipe.hardware.precision)
    return torch.autocast(kind, chosen or torch.bfloat16, enabled=chosen is not None)


def answering(recipe: Recipe) -> Any:
    """The same for answers: what the weights are in, but for a quantized base, whose other weights differ in dtype."""
    return arithmetic(recipe) if recipe.quantization.load else nullcontext()


def mean_loss(losses: Sequence[RowLoss]) -> float:
    """Nats a labelled token, every token of the split counting the same."""
    return sum(loss.total for loss in losses) / max(1, sum(loss.tokens for loss in losses))


def answers(
    model: Any,
    tokenizer: Any,
    ends: Sequence[int],
    prompts: Sequence[Sequence[int]],
    new: int,
    tick: Callable[[int], Any] = lambda rows: None,
) -> list[str]:
    """Greedy continuations up to one of the token ids `ends` or `new` tokens, one for each prompt (token ids)."""
    import torch

    collate, found = Collator(tokenizer.pad_token_id), dict[int, str]()
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for start in range(0, len(order), ROWS_A_BATCH):
        numbers = order[start : start + ROWS_A_BATCH]
        batch = collate([{"input_ids": prompts[number]} for number in numbers])
        del batch["position_ids"]
        with torch.inference_mode():
            made = model.generate(
                **{name: values.to(model.device) for name, values in batch.items()},
                max_new_tokens=new,
                do_sample=False,
                eos_token_id=list(ends),
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        found |= dict(zip(numbers, texts, strict=True))
        tick(len(numbers))
    return [found[number] for number in range(len(prompts))]
