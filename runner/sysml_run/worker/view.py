"""Prepared rows as the model sees them: which text counts in the loss, token by token on demand, and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from sysml_run import manifest
from sysml_run.prepared import REPORT, VIEW
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, whole_folder, write_json

from .data import store
from .data.labels import IGNORED
from .models import load_tokenizer

SHOWN = "shown.json"
COLUMNS = ("id", "prompt", "completion", "input_ids", "labels")


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Answer `data/view.json`: `show` rows of training go to `data/shown.json`, all rows as JSON lines to `out`."""
    asked = read_json(rundir.data / VIEW)
    shown = []
    if asked["show"]:
        rows = store.load(rundir).split("train")
        shown = shown_rows(load_tokenizer(recipe), rows, asked["show"], tokens=asked["tokens"])
    write_json(rundir.data / SHOWN, shown)
    if asked["out"] is not None:
        export(rundir, Path(asked["out"]))
    return {"shown": len(shown), "out": asked["out"]}


def shown_rows(tokenizer: Any, rows: Any, number: int, *, tokens: bool = False) -> list[dict[str, Any]]:
    """The first rows; `pieces` are runs of text that do or do not count in the loss."""
    return [shown_row(tokenizer, row, tokens) for row in rows.select(range(min(number, len(rows))))]


def shown_row(tokenizer: Any, row: dict[str, Any], tokens: bool) -> dict[str, Any]:
    trained = [label != IGNORED for label in row["labels"]]
    found = {
        "id": row["id"],
        "tokens": len(trained),
        "loss_tokens": row["loss_tokens"],
        "pieces": list(pieces(tokenizer, row["input_ids"], trained)),
    }
    if tokens:
        texts = ([tokenizer.decode([id]) for id in row["input_ids"]], row["input_ids"], trained)
        found["each"] = [{"id": id, "text": text, "trained": counts} for text, id, counts in zip(*texts, strict=True)]
    return found


def pieces(tokenizer: Any, ids: list[int], trained: list[bool]) -> Iterator[dict[str, Any]]:
    """The row's text in order, parted where the loss begins and ends; a decoder may join across the parts."""
    at, before = 0, ""
    for counts, group in groupby(trained):
        at += len(list(group))
        upto = tokenizer.decode(ids[:at])
        yield {"text": upto[len(before) :], "trained": counts}
        before = upto


def export(rundir: RunDir, folder: Path) -> None:
    """One file a split, the report, and a manifest with the digest of each; whole or not at all."""
    prepared = store.load(rundir)
    with whole_folder(folder) as staging:
        for name in store.SPLITS:
            with (staging / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                for row in prepared.split(name):
                    file.write(json.dumps({column: row[column] for column in COLUMNS}, ensure_ascii=False) + "\n")
        write_json(staging / "report.json", read_json(rundir.data / REPORT))
        manifest.write(staging, {"prepared": prepared.key, "rows": prepared.rows})
