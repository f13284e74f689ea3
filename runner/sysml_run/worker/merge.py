"""The merge stage: adapter into base, written as safetensors, then proven to give the adapter's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, whole_folder, write_json

from . import models
from .batches import Collator
from .data import store
from .train import require, rows

ROWS = 8
NOISE = 1e-3  # an adapter that changes less than this cannot be told from rounding
TOLERANCE = {"float32": 1e-2, "bfloat16": 1.5, "float16": 0.2}


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `merged/` and the proof in evaluation.json. Raises StageError when the logits differ too much."""
    import torch
    from peft import PeftModel

    require(rundir.model, "train")
    split = rows(recipe, store.load(rundir))
    tokenizer = models.load_tokenizer(recipe)
    picked = [{"input_ids": row["input_ids"]} for row in split.select(range(min(ROWS, len(split))))]
    base = models.load_model(models.model_dir(recipe), recipe, "float32")
    model = PeftModel.from_pretrained(base, rundir.model).eval()
    wanted = logits(model, picked, tokenizer.pad_token_id)
    with model.disable_adapter():
        plain = logits(model, picked, tokenizer.pad_token_id)
    effect = farthest(plain, wanted)
    merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, recipe.model.dtype))
    with whole_folder(rundir.merged) as folder:
        merged.save_pretrained(folder, max_shard_size=recipe.artifacts.max_shard_size)
        tokenizer.save_pretrained(folder)
        del merged, model, base
        found = prove(recipe, folder, picked, wanted, tokenizer.pad_token_id) | {"adapter_effect": effect}
        if found["max_logit_difference"] > max(effect / 2, NOISE):
            words = f"merged logits are {found['max_logit_difference']:.3g} from the adapter's, the base's {effect:.3g}"
            raise StageError(words, "merge in float32: --set model.dtype=float32")
    if rundir.evaluation.is_file():
        write_json(rundir.evaluation, read_json(rundir.evaluation) | {"merged": found})
    print(
        f"merge: logits differ by at most {found['max_logit_difference']:.2g} (limit {found['tolerance']})", flush=True
    )
    return found


def prove(recipe: Recipe, folder: Path, picked: Any, wanted: Any, pad: int) -> dict[str, Any]:
    """Load what was written, run it in fp32 on the same rows and compare every logit of every real token."""
    got = logits(models.load_model(folder, recipe, "float32").eval(), picked, pad)
    difference = farthest(got, wanted)
    agree = [(one.argmax(-1) == other.argmax(-1)).float().mean().item() for one, other in zip(got, wanted, strict=True)]
    limit = TOLERANCE[recipe.model.dtype]
    if not difference <= limit:
        words = f"merged logits differ from the adapter's by {difference:.3g}, more than {limit} ({recipe.model.dtype})"
        raise StageError(words, "keep the adapter in model/, or merge in float32: --set model.dtype=float32")
    top = sum(agree) / len(agree)
    return {"max_logit_difference": difference, "tolerance": limit, "top_token_agreement": top, "rows": len(picked)}


def farthest(some: list[Any], others: list[Any]) -> float:
    """The largest difference of two logits at the same place."""
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))


def logits(model: Any, picked: Any, pad: int) -> list[Any]:
    """One (tokens, vocabulary) float32 tensor for each row."""
    import torch

    found = []
    with torch.inference_mode():
        for row in picked:
            batch = Collator(pad)([row])
            found.append(model(**batch, use_cache=False).logits[0].float())
    return found
