"""What quantization changed, measured: perplexity and likeliest tokens on validation rows, answers, size and speed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe

from . import weights
from .batches import IGNORED
from .readers import Reader
from .scores import scores

ROWS = 64  # validation rows whose answers' tokens are compared
ANSWERED = 32  # of the rows that evaluation had answered
LONGEST = 4096  # tokens; llama-cpp-python holds a number for each word of the vocabulary at each of them
SPEED = 32  # tokens made to tell how fast
HUGE = 700  # nats; what is not below, or no number, is beyond any perplexity
SHOWN = 2000  # characters of the prompt and the answer that are kept


@dataclass(frozen=True)
class Case:
    """What every copy is asked: rows to predict, and prompts to answer in at most `new` tokens."""

    rows: Sequence[Mapping[str, Any]]
    asked: Sequence[Mapping[str, Any]]
    new: int

    @property
    def context(self) -> int:
        """Tokens of the longest row, and of the longest prompt with an answer and with those that tell the speed."""
        prompt = max(int(row["prompt_len"]) for row in (*self.asked, self.rows[0]))
        return max(prompt + max(self.new, SPEED + 1), *(len(row["input_ids"]) for row in self.rows)) + 1


@dataclass(frozen=True)
class Reading:
    """`nats` of each answer token of each row, the likeliest token in its place, and the other figures.

    `smoke` is one prompt and its answer; text of a row stays out of the figures, which are handed on.
    """

    nats: list[list[float]]
    likeliest: list[list[int]]
    figures: dict[str, Any]
    smoke: dict[str, str]


def case(recipe: Recipe, split: Any, chosen: Sequence[int]) -> Case:
    """Raises StageError where there is no row."""
    if not len(split):
        raise StageError("there are no validation rows to measure quantized copies on", "set split.validation")
    new = recipe.evaluation.generate.max_new_tokens if recipe.evaluation.generate else 0
    rows = [split[number] for number in range(min(ROWS, len(split)))]
    short = [row for row in rows if len(row["input_ids"]) <= LONGEST]
    asked = [split[number] for number in chosen[:ANSWERED]]
    return Case(short or rows[:1], [row for row in asked if row["prompt_len"] <= LONGEST], new)


def read(reader: Reader, asked: Case, recipe: Recipe) -> Reading:
    """Ask everything once."""
    found = [likelihoods(reader, row) for row in asked.rows]
    prompts = [row["input_ids"][: row["prompt_len"]] for row in asked.asked]
    texts = reader.answers(prompts, asked.new) if prompts else []
    nats = [each for row, _ in found for each in row]
    mean, told = sum(nats) / max(1, len(nats)), recipe.evaluation
    figures: dict[str, Any] = {
        "reader": reader.name,
        "perplexity": math.exp(mean) if mean < HUGE else math.inf,
        "load_seconds": reader.load_seconds,
        "tokens_per_second": speed(reader, asked.rows[0]),
        "metrics": scores(told.metrics, texts, [row["completion"] for row in asked.asked], told.json_schema),
    }
    same = [reader.tokens(row["prompt"]) for row in asked.rows]
    if same[0] is not None:
        equal = [ids == row["input_ids"][: row["prompt_len"]] for ids, row in zip(same, asked.rows, strict=True)]
        figures["same_token_ids"] = sum(equal) / len(equal)
    smoke = {"prompt": asked.asked[0]["prompt"][:SHOWN], "answer": texts[0][:SHOWN]} if texts else {}
    return Reading([row for row, _ in found], [row for _, row in found], figures, smoke)


def likelihoods(reader: Reader, row: Mapping[str, Any]) -> tuple[list[float], list[int]]:
    """Of each labelled token: its negative log-likelihood in nats, and which token was likeliest there."""
    import torch

    places = [place for place, label in enumerate(row["labels"]) if label != IGNORED and place]
    if not places:
        return [], []
    ids = list(row["input_ids"])
    last = len(ids) - places[0] + 1
    logits = reader.logits(ids, last)[torch.tensor(places) - places[0]]
    wanted = torch.tensor([ids[place] for place in places])
    nats = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    return nats.tolist(), logits.argmax(-1).tolist()


def speed(reader: Reader, row: Mapping[str, Any]) -> float:
    """Tokens made a second behind the first row's prompt, one text at a time; the prompt is not counted."""
    prompt = row["input_ids"][: max(1, row["prompt_len"])]
    clocks = []
    for new in (1, SPEED + 1):
        started = time.monotonic()
        reader.go_on(prompt, new)
        clocks.append(time.monotonic() - started)
    return round(SPEED / max(1e-6, clocks[1] - clocks[0]), 1)


def compared(quantized: Reading, whole: Reading) -> dict[str, Any]:
    """How much higher the perplexity is, as a share, and how many tokens are the likeliest in both."""
    here, there = quantized.likeliest, whole.likeliest
    pairs = [pair for row, other in zip(here, there, strict=True) for pair in zip(row, other, strict=True)]
    return {
        "rows": len(here),
        "tokens": len(pairs),
        "perplexity_increase": quantized.figures["perplexity"] / whole.figures["perplexity"] - 1,
        "top_token_agreement": sum(one == other for one, other in pairs) / max(1, len(pairs)),
    }


def refuse(name: str, figures: Mapping[str, Any], limit: float | None) -> None:
    """Raises StageError for a perplexity that rose by more than `limit`, or that is no number."""
    risen = figures["perplexity_increase"]
    if math.isfinite(risen) and (limit is None or risen <= limit):
        return
    words = f"{name}: perplexity rises from {figures['unquantized']['perplexity']:.4g} to {figures['perplexity']:.4g}"
    allowed = "" if limit is None else f", by {100 * risen:.1f} % where {100 * limit:g} % are allowed"
    hint = "quantize less: more bits, or a smaller group_size; or raise quantization.max_perplexity_increase"
    raise StageError(words + allowed, hint)


def size(path: Path, parameters: int) -> dict[str, Any]:
    """Bytes on disk of a file or of the weights in a folder, and bits of each of the model's parameters."""
    files = [path] if path.is_file() else sorted(path.glob(f"*{weights.SAFE}"))
    total = sum(file.stat().st_size for file in files)
    return {"bytes": total, "bits_per_weight": round(8 * total / parameters, 3)}


def parameters(folder: Path) -> int:
    """Numbers in the weights of an unquantized folder, tied ones once."""
    from safetensors import safe_open

    total = 0
    for file in weights.read(folder):
        with safe_open(file.path, framework="pt") as opened:
            total += sum(math.prod(opened.get_slice(name).get_shape()) for name in file.sizes)
    return total
