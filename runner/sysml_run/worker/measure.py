"""What a model does on prepared rows: loss of every row, and generated answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sysml_run.recipe import Recipe

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
    import torch

    found: dict[int, RowLoss] = {}
    with torch.inference_mode():
        lengths = [max(length, collate.length) for length in rows["length"]]
        for numbers in by_length(lengths, TOKENS_A_BATCH):
            picked = [rows[number] for number in numbers]
            losses, _ = answer_loss(
                model, collate([{key: row[key] for key in ("input_ids", "labels")} for row in picked])
            )
            for number, row, total in zip(numbers, picked, losses.sum(1).tolist(), strict=True):
                found[number] = RowLoss(total, sum(label != -100 for label in row["labels"][1:]))
            tick(len(numbers))
    return [found[number] for number in range(len(found))]


def arithmetic(recipe: Recipe) -> Any:
    """The number format that the recipe's forward passes are computed in, as a context."""
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=recipe.hardware.precision == "bf16")


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
                **batch,
                max_new_tokens=new,
                do_sample=False,
                eos_token_id=list(ends),
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        found |= dict(zip(numbers, texts, strict=True))
        tick(len(numbers))
    return [found[number] for number in range(len(prompts))]
