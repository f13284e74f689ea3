"""The memory that published training runs took, and what the estimate says of them; no training library is needed.

Each case of the file is made a recipe, resolved, and made a step as the recipe's own worker would take it; what its
program does otherwise is put in place of that. The ratio of predicted to reported bytes is shown for each case, and by
source, tier and kind of report. Constants of the allocator are fitted again without each source in turn and the source
is scored with them, since other runs than these are to be estimated. The table goes into benchmarks/results.

    python benchmarks/memory.py CASES.json [--json] [--write]
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import memory_steps
from memory_cases import Case, UnusableError, read

from sysml_run.estimate import peak
from sysml_run.estimate.peak import FITTED, Fitted
from sysml_run.estimate.step import State, Step

GIB = 2**30
RESULTS = Path(__file__).parent / "results" / "memory.md"
HEAD = """\
# The memory of a training step, predicted and published

Written by `benchmarks/memory.py CASES.json --write`. A case is a peak, or a part between steps, that somebody else has
published with its settings. An error is what a prediction is off by beyond the rounding of the figure, in percent of
it; below -15 % a run would be promised that fails.

Two constants are fitted, each on a group and neither on a case: `slack`, what the allocator reserves beside what comes
and goes in a step, on all core cases that are measured; and `varied`, times what is reserved where lengths change from
step to step, on the rows of ms-swift's table, which alone are of that kind and for which no formula accounts. The
values are those with the fewest core cases below -15 %, and of these the ones with the least mean error. All else is
counted: see `sysml_run/estimate`. An estimate of a recipe leaves `varied` out, since the allocator gives back what it
stands for before a run fails, and no case of one length throughout depends on it.

What another program does was read from its code and its documentation: how often its loss copies logits, what it keeps
in fp32, what FSDP has whole at once. Where the source leaves it open, it was settled with these figures in sight, so
that cases which are not in the file may be further off than those left out here.
"""
CLOSE, SHORT = 0.20, -0.15  # a ratio is close within the one; below the other a run would be promised that fails
SLACKS, VARIED = (0.02 * step for step in range(11)), (1 + 0.1 * step for step in range(31))
GRID = tuple(Fitted(round(slack, 2), round(varied, 1)) for slack, varied in itertools.product(SLACKS, VARIED))


@dataclass(frozen=True)
class Scored:
    """`holds` for a case that is an inequality, which has no error; None otherwise."""

    case: Case
    predicted: float
    holds: bool | None

    @property
    def ratio(self) -> float:
        return self.predicted / float(self.case["reported_bytes"])

    @property
    def error(self) -> float:
        """As a share of what is reported, of which its rounding is not held against the prediction."""
        off = self.predicted - float(self.case["reported_bytes"])
        left = max(0.0, abs(off) - float(self.case["rounding_or_reading_error_bytes"] or 0))
        return left / float(self.case["reported_bytes"]) * (1 if off > 0 else -1)


def scored(case: Case, fitted: Fitted = FITTED) -> Scored:
    """The case with what is predicted for it."""
    found = predicted(case, fitted)
    limit = case["extra"].get("constraint")
    return Scored(case, found, None if limit is None else _holds(str(limit), found, float(case["reported_bytes"])))


def predicted(case: Case, fitted: Fitted = FITTED) -> float:
    """Bytes of what the case reports: a part between steps, or the peak as one counts it."""
    what, found = case["what_is_reported"].lower(), memory_steps.architecture(case)
    if "host ram" in what:
        return _host(case)
    if ("states" in what and "after" not in what) or "state init" in what or found is None:
        return _states(case, memory_steps.state(case, None), what)
    return counted(peak.of(memory_steps.step(case, found), fitted), case)


def counted(most: peak.Peak, case: Case) -> float:
    """Allocated by torch, reserved by it, or all of a device; what is said vaguely is all of it."""
    what = case["what_is_reported"].lower()
    if "right after" in what:
        return most.weights + most.optimizer
    if "allocated" in what or "active" in what or (what == "peak memory per gpu" and "torchtune" in case["source"]):
        return most.allocated  # torchtune logs what is active
    return most.reserved if "reserved" in what or "torchtitan" in what else most.device


def _states(case: Case, own: State, what: str) -> float:
    """The ZeRO paper's, and with a layer gathered DeepSpeed's; of other models of which no size is known, a floor."""
    gathered = 4 * case["architecture"].get("largest_layer_params", 0) if case["zero_stage"] == 3 else 0
    if "state init" in what:
        return own.weights + own.optimizer
    return own.weights + own.gradients + own.optimizer + gathered


def _host(case: Case) -> float:
    """DeepSpeed's rule: what is offloaded or, if more, the model as each process loads it, and half as much again."""
    processes, offload = case["extra"].get("gpus_per_node", case.devices), case["offload"] or ""
    if "optimizer" not in offload and case["extra"].get("zero_init"):
        return 1.5 * 4 * processes * float(case["architecture"].get("largest_layer_params", 0))
    away = 18 if "param" in offload else 16 if "optimizer" in offload else 0
    return 1.5 * case.parameters * max(4 * processes, away)


def _holds(limit: str, found: float, reported: float) -> bool:
    """Whether an inequality holds that is written in words or as a sign: "fits", "<=", or the contrary of both."""
    over = re.search(r"does[_ ]not|not[_ ]fit|oom|out[_ ]of[_ ]memory|>|(?<!not )(?<!not_)exceed", limit.lower())
    return found > reported if over else found <= reported


def score(rows: Sequence[Scored]) -> dict[str, Any]:
    """Mean and largest errors of a group, and how many of it are close."""
    errors = [row.error for row in rows if row.holds is None]
    tested = [row.holds for row in rows if row.holds is not None]
    found: dict[str, Any] = {"cases": len(rows)}
    if errors:
        found["mape"] = round(100 * statistics.fmean(map(abs, errors)), 1)
        found["within_20"] = round(100 * sum(abs(error) <= CLOSE for error in errors) / len(errors), 1)
        found["worst_under"] = round(100 * min(0.0, *errors), 1)
        found["worst_over"] = round(100 * max(0.0, *errors), 1)
        found["short"] = sum(error < SHORT for error in errors)
    return found | ({"constraints_held": sum(tested), "constraints": len(tested)} if tested else {})


GROUPS: dict[str, Callable[[Case], str]] = {
    "all": lambda case: "all",
    "core": lambda case: "core" if case["core"] else "not core",
    "tier": lambda case: str(case["tier"]),
    "method": lambda case: kind(case),
    "report": lambda case: str(case["what_is_reported"]),
    "source": lambda case: source(case),
}


def source(case: Case) -> str:
    """Whose measurement it is: the first word of where it was found."""
    return str(case["source"]).split(" ")[0]


def kind(case: Case) -> str:
    """What the published band is for: what is trained, beside what."""
    return "full" if not case["lora"] else "quantized" if "q" in case["method"].split()[0] else "adapters"


def grouped(rows: Iterable[Scored], by: Callable[[Case], str]) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    for row in rows:
        found.setdefault(by(row.case), []).append(row)
    return found


def measured(case: Case) -> bool:
    """Whether constants are fitted on it: core cases that a formula does not give."""
    return bool(case["core"]) and case["tier"].startswith("B") and memory_steps.architecture(case) is not None


def fitted(cases: Sequence[Case]) -> Fitted:
    """The constants with the fewest cases predicted too low, and of those the ones with the least mean error.

    Where nothing tells two apart, as where no case is of varied lengths, the lower ones.
    """
    known = [(case, _step(case)) for case in cases if measured(case)]
    if not known:
        return FITTED

    def cost(chosen: Fitted) -> tuple[int, float]:
        rows = [Scored(case, counted(peak.of(step, chosen), case), None) for case, step in known]
        return sum(row.error < SHORT for row in rows), statistics.fmean(abs(row.error) for row in rows)

    return min(GRID, key=cost)


def _step(case: Case) -> Step:
    found = memory_steps.architecture(case)
    assert found is not None
    return memory_steps.step(case, found)


def left_out(cases: Sequence[Case]) -> Iterator[tuple[str, Fitted, list[Scored]]]:
    """Each source, the constants fitted without it, and its cases with those; nothing where there is but one."""
    for name in dict.fromkeys(map(source, cases)):
        own, others = ([case for case in cases if (source(case) == name) is same] for same in (True, False))
        if any(map(measured, own)) and any(map(measured, others)):
            chosen = fitted(others)
            yield name, chosen, [scored(case, chosen) for case in own]


def report(cases: Sequence[Case]) -> dict[str, Any]:
    """All that is printed, as plain values."""
    rows = [scored(case) for case in cases]
    apart = [*left_out(cases)]
    return {
        "constants": vars(FITTED),
        "fitted": vars(fitted(cases)),
        "cases": [_row(row) for row in rows],
        "groups": {
            name: {key: score(group) for key, group in grouped(rows, by).items()} for name, by in GROUPS.items()
        },
        "leave_one_source_out": {name: {"constants": vars(chosen)} | score(found) for name, chosen, found in apart},
        "leave_one_source_out_core": score([row for _, _, found in apart for row in found if row.case["core"]]),
    }


def _row(row: Scored) -> dict[str, Any]:
    case = row.case
    found: dict[str, Any] = {
        "id": case["id"],
        "core": case["core"],
        "tier": case["tier"],
        "method": kind(case),
        "predicted_bytes": round(row.predicted),
        "reported_bytes": case["reported_bytes"],
        "ratio": round(row.ratio, 3),
    }
    return found | ({} if row.holds is None else {"holds": row.holds})


def text(found: dict[str, Any]) -> str:
    """As tables of markdown."""
    lines = ["| case | core | predicted GiB | reported GiB | ratio |", "| --- | :---: | ---: | ---: | ---: |"]
    for row in found["cases"]:
        sizes = f"{row['predicted_bytes'] / GIB:.2f} | {row['reported_bytes'] / GIB:.2f} | {row['ratio']:.2f}"
        held = {True: ", holds", False: ", does not hold"}.get(row.get("holds"), "")
        lines.append(f"| {row['id']} | {'x' if row['core'] else ''} | {sizes}{held} |")
    return "\n".join([*lines, "", summary(found)])


def summary(found: dict[str, Any]) -> str:
    """What is said of groups, without a line for each case."""
    lines = list[str]()
    for name, groups in found["groups"].items():
        lines += [*_table(name, groups), ""]
    lines += [*_table("each source, with constants fitted on the others", found["leave_one_source_out"]), ""]
    lines += [*_table("of those, all that are core", {"core": found["leave_one_source_out_core"]}), ""]
    constants = ", ".join(f"{name} {value}" for name, value in found["constants"].items())
    return "\n".join([*lines, f"Fitted constants: {constants}.", ""])


def _table(title: str, groups: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"| {title} | cases | mean error % | within 20 % | lowest % | highest % | below -15 % |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, each in groups.items():
        cells = (each.get(key, "-") for key in ("cases", "mape", "within_20", "worst_under", "worst_over", "short"))
        yield f"| {name} | {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str]) -> int:
    """Exit status 2 for a file that is not of the form."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--json", action="store_true", help="plain values instead of tables")
    parser.add_argument("--write", action="store_true", help=f"what is said of groups to {RESULTS.name}")
    chosen = parser.parse_args(arguments)
    try:
        cases = read(chosen.cases)
    except UnusableError as error:
        print(error, file=sys.stderr)
        return 2
    found = report(cases)
    print(json.dumps(found, indent=2) if chosen.json else text(found))
    if chosen.write:
        RESULTS.write_text(f"{HEAD}\n{datetime.now(UTC):%Y-%m-%d}, {len(cases)} cases.\n\n{summary(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
