"""The name of a prepared set: a digest over everything that shapes its rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sysml_run.recipe import Dataset, Recipe
from sysml_run.worker.models import digest, tokenizer_dir

from .rowtypes import resolved_map
from .sources import Source


def compute(recipe: Recipe, sources: list[list[Source]]) -> str:
    """SHA-256 in hex; packing and padding are left out, as they change batches and not rows."""
    prompt = asdict(recipe.prompt)
    shaped = {
        "datasets": [described(dataset, files) for dataset, files in zip(recipe.datasets, sources, strict=True)],
        "split": asdict(recipe.split),
        "prompt": {name: prompt[name] for name in ("template", "sequence_len", "train_on", "truncation")},
        "tokenizer": digest(tokenizer_dir(recipe)),
        "seed": recipe.seed,
        "code": code_digest(),
    }
    return hashlib.sha256(json.dumps(shaped, sort_keys=True).encode()).hexdigest()


def described(dataset: Dataset, files: list[Source]) -> dict[str, Any]:
    return {
        "type": dataset.type,
        "where": dataset.where,
        "max_rows": dataset.max_rows,
        "map": asdict(resolved_map(dataset)),
        "overridden": dataset.map.prompt is not None or dataset.map.completion is not None,
        "files": [source.facts() for source in files],
    }


def code_digest() -> str:
    """Of the source of this package: rows that other code made are not found again."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
