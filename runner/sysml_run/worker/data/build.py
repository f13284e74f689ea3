"""Makes a prepared set: read, map, tokenize, split, report. Nothing of a set that fails is left."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysml_run.datafiles import Source
from sysml_run.errors import DataError
from sysml_run.prepared import REPORT
from sysml_run.recipe import Recipe
from sysml_run.rundir import PARTIAL, whole_folder, write_json
from sysml_run.worker.models import tokenizer_dir

from . import chunks, draw, split, store, workers
from . import report as reports
from .chunks import Encoded
from .columns import Columns
from .draw import Drawn
from .intake import CHOSEN, Found, Intake
from .intake import counted as reasons
from .spool import Spool

WORK = f"{PARTIAL}work-"
LATE = "not to be tokenized"  # of a dataset; the reasons are counted over all of them


def build(
    recipe: Recipe, sources: list[list[Source]], key: str, folder: Path, processes: int | None = None
) -> dict[str, Any]:
    """Write the set to `folder` and give its report; DataError where no honest training could follow.

    A run that is killed leaves its work beside the folder, and the next one of the same key goes on from there.
    """
    work = folder.with_name(f"{WORK}{key}")
    try:
        report = make(recipe, sources, key, folder, work, processes or workers.cores())
    except DataError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work)
    return report


def make(
    recipe: Recipe, sources: list[list[Source]], key: str, folder: Path, work: Path, processes: int
) -> dict[str, Any]:
    if processes > 1 and workers.large(sum(source.size for files in sources for source in files)):
        workers.warm()
    found, columns = first_pass(recipe, sources, work, processes)
    chosen = np.flatnonzero(draw.unrepeated(recipe.split, columns))
    if len(chosen) < len(columns):
        found.dropped["duplicate"] = len(columns) - len(chosen)
    given = columns.dataset[chosen]
    tally(found, "duplicate", np.delete(columns.dataset, chosen))
    encoded = chunks.encode(recipe, work, chosen, columns, processes)
    check_most(found, encoded)
    columns = columns.take(encoded.array("rows"))
    tally(found, LATE, given, columns.dataset)
    check_each(found, encoded)
    strata = codes(recipe.split.stratify_by, found, columns)
    folds = recipe.evaluation.cross_validation
    sides = split.assign(recipe.split, recipe.seed, columns.group, strata, fixed(recipe, columns), folds)
    classes = codes(recipe.split.balance.by, found, columns) if recipe.split.balance else None
    drawn = draw.draw(recipe, columns, sides, classes)
    check_drawn(sides, drawn)
    tally(found, "drawn", columns.dataset[drawn.times == 0])
    found.dropped += encoded.total("dropped") + Counter(drawn.dropped)
    with whole_folder(folder) as staging:
        rows = store.distribute(encoded.files, sides, drawn.times, staging, key)
        report = reports.make(recipe, found, encoded, columns, sides, drawn.times, tokenizer_dir(recipe))
        write_json(staging / REPORT, report)
        store.seal(staging, key, rows)
    return report


def first_pass(recipe: Recipe, sources: list[list[Source]], work: Path, processes: int) -> tuple[Found, Columns]:
    """Read every row, unless an earlier run did; DataError when none of a dataset can be used."""
    before = chunks.load(work)
    if before is not None:
        print(f"prepare: going on; {before[0].read} rows were read before", flush=True)
        return before
    work.mkdir(parents=True)
    with Spool(work / chunks.SPOOL) as spool:
        intake = Intake(recipe, spool, processes)
        found = intake.read_all(sources)
    columns = intake.rows.columns()
    chunks.save(work, found, columns)
    return found, columns


def codes(field: str | None, found: Found, columns: Columns) -> NDArray[np.int32] | None:
    """The rows' values of a field as numbers in the order of the values' texts."""
    if field is None:
        return None
    names = found.names[field]
    ranks = np.argsort(np.argsort(np.array(names, object)))
    return ranks[columns.values[:, list(found.names).index(field)]].astype(np.int32)


def tally(found: Found, reason: str, gone: NDArray[np.int32], but: NDArray[np.int32] | None = None) -> None:
    """Count rows that are gone for their datasets: those of `gone`, less those of `but`."""
    for each in found.datasets:
        number = each["dataset"]
        lost = int((gone == number).sum()) - (0 if but is None else int((but == number).sum()))
        if lost:
            each["kept"] -= lost
            each["dropped"][reason] = lost


def check_each(found: Found, encoded: Encoded) -> None:
    """DataError naming a dataset of which no row is left, unless the recipe left out most of them."""
    for each in found.datasets:
        chosen = sum(each["dropped"].get(reason, 0) for reason in CHOSEN)
        if not each["kept"] and sum(each["dropped"].values()) - chosen > chosen:
            refusal = encoded.first("refusal")
            first = f"; the first refused: {refusal}" if refusal else ""
            late = f" ({reasons(encoded.total('dropped'))} in all)" if LATE in each["dropped"] else ""
            message = f"datasets.{each['dataset']}: none of {each['read']} rows is left: {reasons(each['dropped'])}"
            raise DataError(message + late + first, "mend the data or the prompt section, or take the dataset out")


def fixed(recipe: Recipe, columns: Columns) -> split.Sides:
    """The side that a row's dataset is used as; -1 where split decides."""
    sides = [split.SIDES.index(each.use_as) if each.use_as != "auto" else -1 for each in recipe.datasets]
    return np.array(sides, np.int8)[columns.dataset]


def check_most(found: Found, encoded: Encoded) -> None:
    """DataError when more rows were lost than kept; rows that the recipe leaves out are no loss."""
    lost = found.dropped + encoded.total("dropped")
    for reason in CHOSEN:
        del lost[reason]
    kept = sum(len(part.rows) for part in encoded.parts)
    if lost.total() > kept:
        refusal = encoded.first("refusal")
        first = f"; the first refused: {refusal}" if refusal else ""
        message = f"{lost.total()} of {lost.total() + kept} rows would be lost: {reasons(lost)}{first}"
        raise DataError(message, "mend the data, or raise prompt.sequence_len; training on the rest would mislead")


def check_drawn(sides: split.Sides, drawn: Drawn) -> None:
    if not drawn.times[sides == 0].any():
        raise DataError(f"no row is left to train on: {reasons(drawn.dropped)}", "raise datasets.weight")
