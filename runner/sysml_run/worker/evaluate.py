"""The evaluate stage, before and after: losses computed as in training, answers in the model's own dtype.

A base that was held in 4 or 8 bits in training is held so here, and its answers too are computed as in training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, write_json, write_text

from . import fused, models
from .data import store
from .train import require, rows, training_dtype

WORST = 20
Side = dict[str, Any]


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave evaluation.json, generations.jsonl and worst_rows.jsonl."""
    require(rundir.model, "train")
    split = rows(recipe, store.load(rundir))
    if not len(split):
        raise StageError("there are no validation rows to evaluate on", "set split.validation")
    tokenizer = models.load_tokenizer(recipe)
    chosen = sample(recipe, len(split))
    before, after = sides(recipe, rundir, tokenizer, split, chosen)
    summary: dict[str, Any] = {"rows": len(split), "generated": len(chosen)}
    summary |= {"before": score(recipe, before, split, chosen), "after": score(recipe, after, split, chosen)}
    write_json(rundir.evaluation, summary)
    lines = [line(split, number, before, after) for number in range(len(split))]
    write_lines(rundir / "generations.jsonl", [lines[number] for number in chosen])
    write_lines(rundir / "worst_rows.jsonl", sorted(lines, key=lambda row: -row["after_loss"])[:WORST])
    return {
        "rows": len(split),
        "generated": len(chosen),
        "dtype": recipe.model.dtype,
        "quantized_base": recipe.quantization.load,
        "attention": after["attention"],
    }


def sample(recipe: Recipe, count: int) -> list[int]:
    """Row numbers that get an answer, drawn by the recipe's seed, in order."""
    generate = recipe.evaluation.generate
    wanted = min(generate.rows, count) if generate else 0
    return sorted(random.Random(recipe.seed).sample(range(count), wanted))


def sides(recipe: Recipe, rundir: RunDir, tokenizer: Any, split: Any, chosen: Sequence[int]) -> tuple[Side, Side]:
    """The base model's losses and answers, then the trained one's; an adapter shares the base's weights."""
    dtype = training_dtype(recipe) if recipe.quantization.load else recipe.model.dtype
    base = models.load_base(recipe, dtype, **models.over_cards(recipe)).eval()
    ends = store.end_ids(rundir, tokenizer)
    if recipe.lora is None:
        before = measure("before", base, recipe, tokenizer, split, chosen, ends)
        del base
        after = measure("after", trained(recipe, rundir), recipe, tokenizer, split, chosen, ends)
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(base, rundir.model).eval()
        with model.disable_adapter():
            before = measure("before", model, recipe, tokenizer, split, chosen, ends)
        after = measure("after", model, recipe, tokenizer, split, chosen, ends)
    return before, after


def trained(recipe: Recipe, rundir: RunDir) -> Any:
    return models.load_model(rundir.model, recipe, recipe.model.dtype, **models.over_cards(recipe)).eval()


def measure(
    name: str, model: Any, recipe: Recipe, tokenizer: Any, split: Any, chosen: Sequence[int], ends: Sequence[int]
) -> Side:
    """`losses` of all rows, `answers` by row number for the chosen ones, and what computed `attention`."""
    import sys

    from tqdm import tqdm

    from . import measure as measuring
    from .batches import Collator

    print(f"evaluate: {name} training, {len(split)} rows, {len(chosen)} answers", flush=True)
    with tqdm(total=len(split) + len(chosen), desc=name, unit="row", file=sys.stdout, disable=None, leave=False) as bar:
        with measuring.arithmetic(recipe):
            losses = measuring.row_losses(model, split, Collator(tokenizer.pad_token_id), bar.update)
        prompts = [row["input_ids"][: row["prompt_len"]] for row in (split[number] for number in chosen)]
        new = recipe.evaluation.generate.max_new_tokens if recipe.evaluation.generate else 0
        with measuring.answering(recipe):
            texts = measuring.answers(model, tokenizer, ends, prompts, new, bar.update)
    attention = fused.facts(model)["attention"]
    return {"losses": losses, "answers": dict(zip(chosen, texts, strict=True)), "attention": attention}


def score(recipe: Recipe, side: Side, split: Any, chosen: Sequence[int]) -> dict[str, float | None]:
    from .measure import mean_loss
    from .scores import scores

    wanted = [split[number]["completion"] for number in chosen]
    given = [side["answers"][number] for number in chosen]
    return {"loss": mean_loss(side["losses"]), **scores(recipe.evaluation.metrics, given, wanted)}


def line(split: Any, number: int, before: Side, after: Side) -> dict[str, Any]:
    """One row for people to read; answers are null where none was generated."""
    row = split[number]
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "expected": row["completion"],
        "before": before["answers"].get(number),
        "after": after["answers"].get(number),
        "before_loss": round(before["losses"][number].mean, 4),
        "after_loss": round(after["losses"][number].mean, 4),
    }


def write_lines(path: Any, values: Sequence[Any]) -> None:
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))
