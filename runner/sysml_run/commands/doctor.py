"""`sysml-run doctor`: what this machine has and lacks, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from sysml_run import doctor, hub, inventory, report, rules
from sysml_run.doctor import Check

from .load import look

COLOURS = {"ok": "hint", "missing": "error", "warning": "warning"}


def run(options: argparse.Namespace) -> int:
    """Exit code 1 when something needed is missing, else 0. Raises RecipeError for a recipe that is not valid."""
    found = checks(options.recipe, options.auth)
    as_json = options.format == "json"
    sys.stdout.write(as_data(found) if as_json else as_text(found, report.wants_colour(sys.stdout)))
    return 1 if any(check.state == "missing" for check in found) else 0


def checks(path: Path | None, auth: bool) -> list[Check]:
    """What is looked at: this machine, what the recipe names, and with `auth` what the hub says."""
    if path is None:
        return [*doctor.checks(None), *(hub.ask([]) if auth else ())]
    document, resolved = look(str(path), (), None)
    problems = rules.check(resolved.recipe, document, running=True)
    refused = [problem for problem in problems if problem.severity == "error"]
    found = [*doctor.checks(resolved.recipe), *inventory.checks(resolved.recipe, refused)]
    models = list(dict.fromkeys(named.name for named in inventory.on_hub(resolved.recipe)))
    return [*found, *(hub.ask(models) if auth else ())]


def as_data(found: Sequence[Check]) -> str:
    """`{"checks": [{"group", "name", "state", "found", "mend"}]}`; state is ok, missing or warning."""
    return json.dumps({"checks": [asdict(check) for check in found]}, indent=2, ensure_ascii=False) + "\n"


def as_text(found: Sequence[Check], colour: bool) -> str:
    """One line a check, and below it what mends it; lines that the same command mends share it."""
    width = max(len(check.name) for check in found)
    lines: list[str] = []
    for group, members in groupby(found, key=lambda check: check.group):
        each = list(members)
        lines.append(report.painted(group, "place", colour))
        for check, after in zip(each, [*each[1:], None], strict=True):
            mark = report.painted(f"{check.state:7}", COLOURS[check.state], colour)
            lines.append(f"  {mark}  {check.name:{width}}  {report.printable(check.found)}")
            if check.mend and (after is None or after.mend != check.mend):
                lines.append(f"  {'':7}  {'':{width}}  -> {report.printable(check.mend)}")
    return "\n".join([*lines, "", _count(found)]) + "\n"


def _count(found: Sequence[Check]) -> str:
    states = [check.state for check in found]
    missing, warnings = states.count("missing"), states.count("warning")
    return f"{missing or 'nothing'} missing, {warnings or 'no'} warning{'' if warnings == 1 else 's'}"
