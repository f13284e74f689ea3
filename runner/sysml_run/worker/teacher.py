"""The teacher stage: runs the teacher over the training rows once and keeps what it predicts in the cache.

The teacher is alone in memory then, and every run of the same rows with the same teacher finds its predictions.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sysml_run import teachers
from sysml_run.errors import StageError
from sysml_run.prepared import Prepared, intact
from sysml_run.recipe import Recipe
from sysml_run.rundir import PARTIAL, RunDir, publish, read_json, write_json

from . import models
from .batches import IGNORED, Collator, answer_logits, by_length
from .data import store
from .distill import Predictions, likeliest
from .measure import TOKENS_A_BATCH, arithmetic
from .prepare import alone
from .taught import POINTER, Taught, describe, split_name

FACTS, DONE = "facts.json", "done.json"
BETWEEN = 60.0  # seconds after which work that is done is noted for a run that goes on with it
POSITIONS = 256  # whose predictions are sorted at a time
COLUMNS = ("input_ids", "labels", "seq_lengths")


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `data/teacher.json`, which points into the cache. Raises StageError for a teacher of other tokens."""
    assert recipe.distillation is not None
    started, prepared = time.monotonic(), store.load(rundir)
    taught = describe(recipe, prepared)
    with alone(taught.path, "teacher: another run has the same teacher at work"):
        hit = intact(taught.path) is not None
        if not hit:
            make(recipe, prepared, taught)
        facts: dict[str, Any] = read_json(taught.path / FACTS)
    write_json(rundir.data / POINTER, asdict(taught) | {"path": str(taught.path)})
    tell(taught, facts, hit)
    known = models.base_facts(teachers.as_base(recipe)) | facts
    known |= {"digest": taught.digest, "temperature": taught.temperature, "cache": "hit" if hit else "made"}
    return known | {"seconds": round(time.monotonic() - started, 3)}


def tell(taught: Taught, facts: dict[str, Any], hit: bool) -> None:
    how = f"cache hit ({taught.key[:12]}…)" if hit else f"{facts['bytes'] / 1e6:.1f} MB"
    kept = f"{100 * facts['kept_probability']:.1f} % of the probability in {facts['top_k']} tokens"
    said = f"{facts['positions']} positions, {kept}, loss of the labels {facts['loss']:.3f}"
    print(f"teacher: {how}, {said}", flush=True)


def make(recipe: Recipe, prepared: Prepared, taught: Taught) -> None:
    """Run the teacher over every row; a run that is stopped leaves its work, and the next one goes on from there."""
    import numpy as np

    rows, words = prepared.split(split_name(recipe)), vocabulary(recipe)
    work, k = taught.path.with_name(f"{PARTIAL}{taught.path.name}"), min(taught.top_k, words)
    counts = np.asarray(rows["loss_tokens"])
    if (work / DONE).is_file():
        predictions, before = Predictions(work, "r+"), read_json(work / DONE)
        print(f"teacher: going on after {before['batches']} batches", flush=True)
    else:
        shutil.rmtree(work, ignore_errors=True)
        roomy(int(counts.sum()), k, prepared.path)
        predictions, before = Predictions.create(work, counts, k), {"batches": 0, "nats": 0.0, "kept": 0.0}
    sums = predict(recipe, rows, predictions, words, before, work / DONE)
    positions = max(1, int(counts.sum()))
    size = sum(file.stat().st_size for file in work.glob("*.npy"))
    means = {"loss": sums["nats"] / positions, "kept_probability": sums["kept"] / positions}
    write_json(work / FACTS, {"rows": len(rows), "positions": int(counts.sum()), "top_k": k, "bytes": size, **means})
    (work / DONE).unlink()
    store.seal(work, taught.key, {split_name(recipe): len(rows)})
    publish(work, taught.path)


def vocabulary(recipe: Recipe) -> int:
    """How many words the model that learns is asked for. Raises StageError for a teacher with others."""
    ours = models.load_tokenizer(recipe).get_vocab()
    wrong = teachers.stranger(ours, models.load_tokenizer(teachers.as_base(recipe)).get_vocab())
    if wrong is not None:
        raise StageError(f"distillation.teacher {wrong}", "name a teacher with the tokenizer of the base model")
    return int(max(ours.values())) + 1


def roomy(positions: int, k: int, folder: Path) -> None:
    """Raises StageError where the predictions do not fit on the disk."""
    need, free = positions * (8 * k + 4), shutil.disk_usage(folder).free
    if need > free:
        message = f"the teacher's predictions take {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder}"
        fitting = int(free / positions - 4) // 8
        raise StageError(message, f"write distillation.top_k: {fitting}, or make room" if fitting > 0 else "make room")


@dataclass
class Teacher:
    """Asked for rows, keeps the `k` likeliest of `words` tokens at each position, softened by the temperature."""

    model: Any
    collate: Collator
    temperature: float
    words: int
    k: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any, float]:
        """Ids and logarithms of probabilities on the processor, as `likeliest` gives them, and the labels' loss."""
        import torch

        batch = {name: values.to(self.model.device) for name, values in self.collate(rows).items()}
        with torch.inference_mode():
            labels, logits, _ = answer_logits(self.model, batch)
            known = (labels != IGNORED).to(logits.device)
            picked, wanted = logits[known][:, : self.words], labels.to(logits.device)[known]
            nats = float(torch.nn.functional.cross_entropy(picked, wanted, reduction="sum"))
            kept = [likeliest(part / self.temperature, self.k) for part in picked.split(POSITIONS)]
        ids, logprobs = (torch.cat(parts).cpu() for parts in zip(*kept, strict=True))
        return ids, logprobs, nats


def load_teacher(recipe: Recipe, words: int, k: int) -> Teacher:
    """The teacher in the recipe's dtype, over all cards. Raises StageError where its weights are of fewer tokens."""
    assert recipe.distillation is not None
    taught, flat = teachers.as_base(recipe), recipe.model.attn_implementation == "flash_attention_2"
    model = models.load_model(models.model_dir(taught), taught, recipe.model.dtype, **models.over_cards(recipe)).eval()
    known = model.get_input_embeddings().weight.shape[0]
    if known < words:
        message = f"the teacher's weights are of {known} tokens, and its tokenizer has {words}"
        raise StageError(message, "name another teacher")
    return Teacher(model, Collator(pad(recipe), flat=flat), recipe.distillation.temperature, words, k)


def pad(recipe: Recipe) -> int:
    return int(models.load_tokenizer(recipe).pad_token_id)


def predict(
    recipe: Recipe, rows: Any, predictions: Predictions, words: int, before: dict[str, Any], note: Path
) -> dict[str, Any]:
    """Fill in the predictions batch by batch; sums over all positions, kept in `note` with the batches done."""
    from tqdm import tqdm

    batches = [*by_length(rows["length"][:], TOKENS_A_BATCH)]
    teacher = load_teacher(recipe, words, predictions.ids.shape[1])
    fed = rows.select_columns([name for name in COLUMNS if name in rows.column_names])
    done, noted = before, time.monotonic()
    bar = tqdm(total=len(rows), desc="teacher", unit="row", file=sys.stdout, disable=None, leave=False)
    bar.update(sum(map(len, batches[: done["batches"]])))
    try:
        with bar, arithmetic(recipe):
            for numbers in batches[done["batches"] :]:
                ids, logprobs, nats = teacher([fed[number] for number in numbers])
                predictions.put(numbers, ids, logprobs)
                kept = len(ids) - float(logprobs[:, -1].double().exp().sum())
                done = {"batches": done["batches"] + 1, "nats": done["nats"] + nats, "kept": done["kept"] + kept}
                bar.update(len(numbers))
                if time.monotonic() > noted + BETWEEN:
                    save(predictions, done, note)
                    noted = time.monotonic()
                    if bar.disable:
                        print(f"teacher: batch {done['batches']} of {len(batches)}", flush=True)
    finally:
        save(predictions, done, note)
    return done


def save(predictions: Predictions, done: dict[str, Any], note: Path) -> None:
    """The predictions reach the disk before the note that says so."""
    predictions.flush()
    write_json(note, done)
