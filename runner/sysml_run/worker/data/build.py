"""Makes a prepared set: read, map, tokenize, split, report. Nothing of a set that fails is left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.rundir import whole_folder, write_json

from . import report as reports
from . import split, store
from .encode import Encode, Encoded
from .intake import Intake
from .sources import Source
from .spool import Spool


def build(recipe: Recipe, sources: list[list[Source]], key: str, folder: Path) -> dict[str, Any]:
    """Write the set to `folder` and give its report; DataError where no honest training could follow."""
    with whole_folder(folder) as staging:
        work = staging / "work"
        work.mkdir()
        with Spool(work / "rows.jsonl") as spool:
            intake = Intake(recipe, spool)
            intake.read_all(sources)
            check_any(intake)
            encoded = encode(recipe, intake, work / "rows.arrow")
        check_most(intake, encoded)
        sides = assign(recipe, intake, encoded)
        rows = store.distribute(work / "rows.arrow", sides, staging, key)
        report = reports.make(intake, encoded, sides)
        write_json(staging / store.REPORT, report)
        shutil.rmtree(work)
        store.seal(staging, key, rows)
    return report


def encode(recipe: Recipe, intake: Intake, path: Path) -> Encoded:
    from sysml_run.worker.models import load_tokenizer

    return Encode(load_tokenizer(recipe), recipe.prompt)(intake.spool, intake.records, path)


def assign(recipe: Recipe, intake: Intake, encoded: Encoded) -> list[str]:
    strata = [""] * len(encoded.records)
    if recipe.split.stratify_by:
        column = intake.fields.index(recipe.split.stratify_by)
        strata = [record.values[column] or "" for record in encoded.records]
    return split.assign(recipe.split, recipe.seed, [record.group for record in encoded.records], strata)


def check_any(intake: Intake) -> None:
    if not intake.records:
        raise DataError(f"none of {intake.read} rows can be used: {reasons(intake.dropped)}", "look at where and map")


def check_most(intake: Intake, encoded: Encoded) -> None:
    """DataError when more rows were lost than kept; rows that `where` and `max_rows` leave out are no loss."""
    lost = intake.dropped + encoded.dropped
    del lost["where"], lost["max_rows"]
    kept = len(encoded.records)
    if lost.total() > kept:
        first = f"; the first refused: {encoded.refusal}" if encoded.refusal else ""
        message = f"{lost.total()} of {lost.total() + kept} rows would be lost: {reasons(lost)}{first}"
        raise DataError(message, "mend the data, or raise prompt.sequence_len; training on the rest would mislead")


def reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())) or "nothing was read"
