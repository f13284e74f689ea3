"""Cross-validation: one run for each fold, in a folder of the whole, and what they come to."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sysml_run import crossval, machine, plan, planview, prepared, runs, summary
from sysml_run.backends.base import Launch
from sysml_run.document import Document
from sysml_run.errors import StageError, UsageError
from sysml_run.overrides import set_value
from sysml_run.plan import Plan
from sysml_run.position import Pointer
from sysml_run.recipe import Recipe
from sysml_run.resolve import Resolved, resolve
from sysml_run.rundir import RunDir, read_json, write_json, write_text

from .stages import finish, fitting, startable

FOLD: Pointer = ("evaluation", "cross_validation", "fold")


def wanted(recipe: Recipe) -> bool:
    """Whether all folds are to be trained, and not one that is named."""
    return crossval.runs(recipe) > 1


def refuse(recipe: Recipe, what: str) -> None:
    """Of what is for a single run. Raises UsageError."""
    if wanted(recipe):
        hint = "name a fold: --set evaluation.cross_validation.fold=1"
        raise UsageError(f"{what} is for one run, and cross-validation is one for each fold", hint)


def run(document: Document, resolved: Resolved, options: argparse.Namespace, resumed: RunDir | None) -> None:
    """Train what is not done yet of each fold, in `resumed` or a new folder, and leave the summary."""
    folder = resumed.path if resumed else runs.new_path(options.runs, resolved.recipe.name)
    folds = of_each(document, resolved, folder, offline=options.offline)
    chosen = [plan.choose(made, options.only, options.until) for _, _, made in folds]
    if resumed is None:
        startable(chosen[0])
    together = plan.make(resolved, machine.look(), str(folder), offline=options.offline)
    whole = resumed or fresh(RunDir(folder), together, document)
    each = zip(folds, chosen, strict=True)
    if any(launch.stage == "train" and not rundir.done("train") for (rundir, *_), some in each for launch in some):
        fitting(together, document.source)
    with runs.owned(whole):
        for (rundir, changed, made), launches in zip(folds, chosen, strict=True):
            sys.stdout.write(f"{rundir.path.name} of {len(folds)}\n")
            runs.set_state(whole, "running", rundir.path.name)
            if not rundir.recipe.is_file():
                runs.write(
                    rundir, made, document.text, planview.values(made, changed.source, prepared.rows(made.recipe))
                )
            with runs.owned(rundir) as lock:
                fold(whole, rundir, made, launches, lock)
        runs.set_state(whole, "done" if gathered(whole, [rundir for rundir, _, _ in folds]) else "partial", None)
    sys.stdout.write(summary.summary(whole) + "\n")


def fold(whole: RunDir, rundir: RunDir, made: Plan, launches: Sequence[Launch], lock: int) -> None:
    """One run of the whole, which has failed where this one does."""
    try:
        finish(rundir, made, launches, lock)
    except StageError:
        runs.set_state(whole, "failed", rundir.path.name)
        raise


def of_each(
    document: Document, resolved: Resolved, folder: Path, *, offline: bool
) -> list[tuple[RunDir, Document, Plan]]:
    """The run directory, document and plan of every fold."""
    told = resolved.recipe.evaluation.cross_validation
    assert told is not None
    found = []
    for number in range(1, told.folds + 1):
        changed = set_value(document, FOLD, number, f"fold {number} of {told.folds}")
        path = folder / crossval.folder(number)
        found.append((RunDir(path), changed, plan.make(resolve(changed), machine.look(), str(path), offline=offline)))
    return found


def fresh(whole: RunDir, made: Plan, document: Document) -> RunDir:
    """A folder that is known by its `recipe.json`, as a run's."""
    write_text(whole / "recipe.yaml", document.text)
    write_text(whole / runs.STARTED, f"{Path.cwd()}\n")
    text = json.dumps({"values": made.values, "sources": made.sources}, indent=2, ensure_ascii=False)
    write_text(whole.recipe, text + "\n")
    sys.stdout.write(planview.text(made, prepared.rows(made.recipe), commands=False))
    return whole


def gathered(whole: RunDir, folds: list[RunDir]) -> bool:
    """Leave the summary, where every fold was evaluated."""
    if not all(fold.done("evaluate") for fold in folds):
        return False
    write_json(whole / crossval.NAME, crossval.gather([read_json(fold.evaluation) for fold in folds]))
    return True
