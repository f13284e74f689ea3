"""`sysml-run report`: what came of runs, on screen, side by side where there are several."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sysml_run import crossval, peaks, runs, summary
from sysml_run.errors import UsageError
from sysml_run.measures import MINUS, measures
from sysml_run.rundir import RunDir, read_json


def run(options: argparse.Namespace) -> int:
    """Print the summary of each run. Raises UsageError for what is no run directory."""
    found = [_run(path) for path in options.runs]
    sys.stdout.write(as_data(found) if options.format == "json" else as_text(found))
    return 0


def as_data(found: list[RunDir]) -> str:
    """`{"runs": [{"path", "name", "state", "stages": {name: record}, "memory", "evaluation", ...}]}`.

    And `cross_validation` and `report`; null for what a run does not have.
    """
    made = [
        {
            "path": str(each.path),
            "name": read_json(each.recipe)["values"]["name"],
            "state": runs.state(each)["state"],
            "stages": summary.records(each),
            "memory": _memory(each),
            "evaluation": _evaluation(each) or None,
            "cross_validation": read_json(each / crossval.NAME) if (each / crossval.NAME).is_file() else None,
            "report": str(each / "report.html") if (each / "report.html").is_file() else None,
        }
        for each in found
    ]
    return json.dumps({"runs": made}, indent=2, ensure_ascii=False) + "\n"


def as_text(found: list[RunDir]) -> str:
    """The end of each run as it was printed then; before it, for several, what was measured after training."""
    blocks = [f"{summary.summary(each)}\nstate  {_state(each)}" for each in found]
    table = summary.table([*_side_by_side(found)]) if len(found) > 1 else []
    return "\n\n".join(["\n".join(table), *blocks] if table else blocks) + "\n"


def _run(path: Path) -> RunDir:
    rundir = RunDir(path.absolute())
    if not rundir.recipe.is_file():
        raise UsageError(f"{path} is not a run directory", "name a folder such as runs/quickstart/20260101-120000-abcd")
    try:
        dict(read_json(rundir.recipe)["values"])["name"]
        _evaluation(rundir)
        summary.records(rundir)
    except (OSError, ValueError, TypeError, KeyError):
        raise UsageError(f"{path} has a recipe.json, evaluation.json or record that cannot be read") from None
    return rundir


def _state(rundir: RunDir) -> str:
    found: dict[str, Any] = runs.state(rundir)
    return f"{found['state']}, {found['stage']}" if found["stage"] else str(found["state"])


def _side_by_side(found: list[RunDir]) -> Iterator[tuple[str, ...]]:
    """A line for each metric that any run has, in the order of the first; a dash where a run has it not."""
    after = [{each.label: each.shown(each.after) for each in measures(_evaluation(rundir))} for rundir in found]
    yield ("after training", *(rundir.path.name for rundir in found))
    for label in dict.fromkeys(label for one in after for label in one):
        cells = (one.get(label, "-").replace("\N{EN DASH}", "-").replace(MINUS, "-") for one in after)
        yield (label, *cells)


def _memory(rundir: RunDir) -> dict[str, Any] | None:
    """Bytes at the peak of training: `predicted`, `measured` and their `ratio`."""
    found = summary.records(rundir).get("train", {}).get("memory")
    return peaks.compared(found, read_json(rundir.recipe)["values"]) if found else None


def _evaluation(rundir: RunDir) -> dict[str, Any]:
    return dict(read_json(rundir.evaluation)) if rundir.evaluation.is_file() else {}
