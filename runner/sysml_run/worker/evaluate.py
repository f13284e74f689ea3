"""The evaluate stage, before and after: losses computed as in training, answers in the model's own dtype.

A base that was held in 4 or 8 bits in training is held so here, and its answers too are computed as in training.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run.errors import StageError
from sysml_run.manifest import sha256
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
    prepared = store.load(rundir)
    validation = part(recipe, rows(recipe, prepared))
    if not len(validation.rows):
        raise StageError("there are no validation rows to evaluate on", "set split.validation")
    parts = {"validation": validation, "test": part(recipe, rows(recipe, prepared, "test"))}
    asked = {name: each for name, each in parts.items() if len(each.rows)}
    before, after = sides(recipe, rundir, models.load_tokenizer(recipe), asked)
    found = {name: compared(recipe, each, before[name], after[name]) for name, each in asked.items()}
    write_json(rundir.evaluation, {**found.pop("validation"), **found})
    lines = [line(validation, number, before["validation"], after["validation"]) for number in range(len(validation))]
    write_lines(rundir / "generations.jsonl", [lines[number] for number in validation.chosen])
    worst = sorted(lines, key=lambda row: (row["after"] is None, -row["after_loss"]))
    write_lines(rundir / "worst_rows.jsonl", worst[:WORST])
    schema = recipe.evaluation.json_schema
    return {
        "rows": len(validation),
        "generated": len(validation.chosen),
        "test_rows": len(parts["test"]),
        "json_schema_sha256": sha256(Path(schema)) if schema else None,
        "dtype": recipe.model.dtype,
        "quantized_base": recipe.quantization.load,
        "attention": after["validation"]["attention"],
    }


@dataclass(frozen=True)
class Part:
    """Rows that are measured, and the numbers of those that get an answer."""

    rows: Any
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)


Parts = Mapping[str, Part]


def part(recipe: Recipe, split: Any) -> Part:
    return Part(split, sample(recipe, len(split)))


def compared(recipe: Recipe, asked: Part, before: Side, after: Side) -> dict[str, Any]:
    """`rows`, `generated`, the metrics `before` and `after`, and `classes` where a metric counts them."""
    found: dict[str, Any] = {"rows": len(asked), "generated": len(asked.chosen)}
    found |= {"before": score(recipe, before, asked), "after": score(recipe, after, asked)}
    there, here = counted(recipe, before, asked), counted(recipe, after, asked)
    classes = {
        field: {name: {"before": there[field][name], "after": each} for name, each in by_class.items()}
        for field, by_class in here.items()
    }
    return found | ({"classes": classes} if classes else {})


def sample(recipe: Recipe, count: int) -> list[int]:
    """Row numbers that get an answer, drawn by the recipe's seed, in order."""
    generate = recipe.evaluation.generate
    wanted = min(generate.rows, count) if generate else 0
    return sorted(random.Random(recipe.seed).sample(range(count), wanted))


def sides(recipe: Recipe, rundir: RunDir, tokenizer: Any, parts: Parts) -> tuple[dict[str, Side], dict[str, Side]]:
    """Losses and answers of the base model, then of the trained one, by part; an adapter shares the base's weights."""
    dtype = training_dtype(recipe) if recipe.quantization.load else recipe.model.dtype
    base = models.load_base(recipe, dtype, **models.over_cards(recipe)).eval()
    ends = store.end_ids(rundir, tokenizer)
    if recipe.lora is None:
        before = measure("before", base, recipe, tokenizer, parts, ends)
        del base
        after = measure("after", trained(recipe, rundir), recipe, tokenizer, parts, ends)
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(base, rundir.model).eval()
        with model.disable_adapter():
            before = measure("before", model, recipe, tokenizer, parts, ends)
        after = measure("after", model, recipe, tokenizer, parts, ends)
    return before, after


def trained(recipe: Recipe, rundir: RunDir) -> Any:
    return models.load_model(rundir.model, recipe, recipe.model.dtype, **models.over_cards(recipe)).eval()


def measure(
    when: str, model: Any, recipe: Recipe, tokenizer: Any, parts: Parts, ends: Sequence[int]
) -> dict[str, Side]:
    """By part: `losses` of all rows, `answers` by row number for the chosen ones, and what computed `attention`."""
    return {name: one(f"{when} training, {name}", model, recipe, tokenizer, each, ends) for name, each in parts.items()}


def one(title: str, model: Any, recipe: Recipe, tokenizer: Any, asked: Part, ends: Sequence[int]) -> Side:
    import sys

    from tqdm import tqdm

    from . import measure as measuring
    from .batches import Collator

    split, chosen, count = asked.rows, asked.chosen, len(asked) + len(asked.chosen)
    print(f"evaluate: {title}: {len(asked)} rows, {len(chosen)} answers", flush=True)
    with tqdm(total=count, desc=title, unit="row", file=sys.stdout, disable=None, leave=False) as bar:
        with measuring.arithmetic(recipe):
            losses = measuring.row_losses(model, split, Collator(tokenizer.pad_token_id), bar.update)
        prompts = [row["input_ids"][: row["prompt_len"]] for row in (split[number] for number in chosen)]
        new = recipe.evaluation.generate.max_new_tokens if recipe.evaluation.generate else 0
        with measuring.answering(recipe):
            texts = measuring.answers(model, tokenizer, ends, prompts, new, bar.update)
    attention = fused.facts(model)["attention"]
    return {"losses": losses, "answers": dict(zip(chosen, texts, strict=True)), "attention": attention}


def score(recipe: Recipe, side: Side, asked: Part) -> dict[str, float | None]:
    from .measure import mean_loss
    from .scores import scores

    told = recipe.evaluation
    return {"loss": mean_loss(side["losses"]), **scores(told.metrics, *texts(side, asked), told.json_schema)}


def counted(recipe: Recipe, side: Side, asked: Part) -> dict[str, dict[str, dict[str, float | None]]]:
    from .scores import classes

    return classes(recipe.evaluation.metrics, *texts(side, asked))


def texts(side: Side, asked: Part) -> tuple[list[str], list[str]]:
    """What was answered, and what should have been."""
    return [side["answers"][row] for row in asked.chosen], [asked.rows[row]["completion"] for row in asked.chosen]


def line(asked: Part, number: int, before: Side, after: Side) -> dict[str, Any]:
    """One row for people to read; answers are null where none was generated."""
    row = asked.rows[number]
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
