"""The merge stage: adapter into base, written as safetensors, then proven to give the adapter's logits.

The base is as it was published, also where training held it in 4 or 8 bits: then the loss is measured on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, whole_folder, write_json

from . import fused, models
from .batches import Collator
from .data import store
from .measure import arithmetic, mean_loss, row_losses
from .train import require, rows, training_dtype

ROWS = 8
NOISE = 1e-3  # an adapter that changes less than this cannot be told from rounding
TOLERANCE = {"float32": 1e-2, "bfloat16": 1.5, "float16": 0.2}
LOSS_ROWS = 64
LOST = 0.25  # of what training gained; more must not go when the quantized base is exchanged for the published one
LOSS_NOISE = 0.01  # share of the loss that may go in any case: a run that gained nothing has nothing to lose


@dataclass(frozen=True)
class Trained:
    """On a quantized base: logits of the picked rows with the adapter, and the loss without it and with it."""

    logits: list[Any]
    before: float
    after: float


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `merged/` and the proof in evaluation.json. Raises StageError when the logits differ too much."""
    import torch
    from peft import PeftModel

    require(rundir.model, "train")
    split = rows(recipe, store.load(rundir))
    tokenizer = models.load_tokenizer(recipe)
    pad = tokenizer.pad_token_id
    picked = [{"input_ids": row["input_ids"]} for row in split.select(range(min(ROWS, len(split))))]
    trained = as_trained(recipe, rundir, split, picked, pad) if recipe.quantization.load else None
    base = models.load_model(models.model_dir(recipe), recipe, "float32")
    model = PeftModel.from_pretrained(base, rundir.model).eval()
    wanted = logits(model, picked, pad)
    with model.disable_adapter():
        plain = logits(model, picked, pad)
    effect = farthest(plain, wanted)
    merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, recipe.model.dtype))
    with whole_folder(rundir.merged) as folder:
        merged.save_pretrained(folder, max_shard_size=recipe.artifacts.max_shard_size)
        tokenizer.save_pretrained(folder)
        del merged, model, base
        written = models.load_model(folder, recipe, "float32").eval()
        found = prove(recipe, logits(written, picked, pad), wanted) | {"adapter_effect": effect}
        found["attention"] = fused.facts(written)["attention"]
        if found["max_logit_difference"] > max(effect / 2, NOISE):
            words = f"merged logits are {found['max_logit_difference']:.3g} from the adapter's, the base's {effect:.3g}"
            raise StageError(words, "merge in float32: --set model.dtype=float32")
        if trained is not None:
            found["quantized_base"] = moved(recipe, trained, written, split, picked, pad)
            kept(found["quantized_base"])
    if rundir.evaluation.is_file():
        write_json(rundir.evaluation, read_json(rundir.evaluation) | {"merged": found})
    print(
        f"merge: logits differ by at most {found['max_logit_difference']:.2g} (limit {found['tolerance']})", flush=True
    )
    return found


def prove(recipe: Recipe, got: list[Any], wanted: list[Any]) -> dict[str, Any]:
    """Compare every logit of every real token of what was written with the adapter's. Raises StageError."""
    difference = farthest(got, wanted)
    limit = TOLERANCE[recipe.model.dtype]
    if not difference <= limit:
        words = f"merged logits differ from the adapter's by {difference:.3g}, more than {limit} ({recipe.model.dtype})"
        raise StageError(words, "keep the adapter in model/, or merge in float32: --set model.dtype=float32")
    return {
        "max_logit_difference": difference,
        "tolerance": limit,
        "top_token_agreement": agreement(got, wanted),
        "rows": len(wanted),
    }


def as_trained(recipe: Recipe, rundir: RunDir, split: Any, picked: Any, pad: int) -> Trained:
    """The adapter beside the base that it was trained beside."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(models.load_base(recipe, training_dtype(recipe)), rundir.model).eval()
    with arithmetic(recipe):
        with model.disable_adapter():
            before = loss(model, split, pad)
        return Trained(logits(model, picked, pad), before, loss(model, split, pad))


def moved(recipe: Recipe, trained: Trained, merged: Any, split: Any, picked: Any, pad: int) -> dict[str, Any]:
    """What it changes that the adapter, trained on a quantized base, now stands on the base as it was published."""
    with arithmetic(recipe):
        got, after = logits(merged, picked, pad), loss(merged, split, pad)
    return {
        "load": recipe.quantization.load,
        "rows": min(LOSS_ROWS, len(split)),
        "base_loss": trained.before,
        "loss": trained.after,
        "merged_loss": after,
        "loss_difference": after - trained.after,
        "tolerance": max(LOST * (trained.before - trained.after), LOSS_NOISE * trained.after),
        "max_logit_difference": farthest(got, trained.logits),
        "top_token_agreement": agreement(got, trained.logits),
    }


def kept(found: dict[str, Any]) -> None:
    """Say both losses. Raises StageError when the merged weights lost too much of what was trained."""
    load, gone = found["load"], found["loss_difference"]
    words = f"loss {found['loss']:.3f} beside the base in {load}, {found['merged_loss']:.3f} merged into it unquantized"
    print(f"merge: {words}", flush=True)
    if not gone <= found["tolerance"]:
        hint = f"load the adapter in model/ on the base in {load}, or train it on the unquantized base: "
        raise StageError(f"{words}, which loses what training gained", f"{hint}--set quantization.load=null")


def loss(model: Any, split: Any, pad: int) -> float:
    """Nats a labelled token over the first rows."""
    return mean_loss(row_losses(model, split.select(range(min(LOSS_ROWS, len(split)))), Collator(pad)))


def agreement(some: list[Any], others: list[Any]) -> float:
    """The share of places where both have the same likeliest token, every row counting the same."""
    same = [(one.argmax(-1) == other.argmax(-1)).float().mean().item() for one, other in zip(some, others, strict=True)]
    return float(sum(same) / len(same))


def farthest(some: list[Any], others: list[Any]) -> float:
    """The largest difference of two logits at the same place."""
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))


def logits(model: Any, picked: Any, pad: int) -> list[Any]:
    """One (tokens, vocabulary) float32 tensor for each row, in the processor's memory."""
    import torch

    found = []
    with torch.inference_mode():
        for row in picked:
            batch = {name: values.to(model.device) for name, values in Collator(pad)([row]).items()}
            found.append(model(**batch, use_cache=False).logits[0].float().cpu())
    return found
