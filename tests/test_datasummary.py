"""The data report as lines of text."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sysml_run import datasummary

GOLDEN = Path(__file__).parent / "datasummary"


def split(rows: int, **more: Any) -> dict[str, Any]:
    tokens, loss = {"p50": 118, "p95": 161, "max": 2048}, {"p50": 14, "p95": 15, "max": 20}
    return {"rows": rows, "tokens": tokens, "truncated": 0, "loss": loss, "answer_share": 0.17} | more


def note(path: str, member: str | None = None, **more: Any) -> dict[str, Any]:
    return {"path": path, "member": member, "rows": 0} | more


def leak(exact: int, masked: int) -> dict[str, int]:
    return {"exact": exact, "masked": masked}


FULL: dict[str, Any] = {
    "rows": {"read": 12451, "kept": 12432, "dropped": {"where": 12, "not_a_row": 7}},
    "template": {"name": "mistral v3", "origin": "sysml-run's own mistral.jinja"},
    "datasets": [
        {"dataset": 0, "type": "sysscan.finding", "read": 12400, "kept": 12388, "dropped": {"where": 12}}
        | {"first": {}, "wants": "a finding"},
        {"dataset": 1, "type": "alpaca", "read": 51, "kept": 44, "dropped": {"not_a_row": 7}}
        | {"first": {"not_a_row": "b.json:3, which has the fields a, b"}, "wants": "an object with instruction"},
    ],
    "files": [
        note("a.tar.gz", "generation_report.json", skipped="holds no rows"),
        note("a.tar.gz", "bad.json", unreadable="JSONDecodeError: cut"),
        note("b.jsonl", bad_lines=[[3, "NaN is not JSON"], [4, "cut"], [5, "cut"], [6, "cut"]]),
    ],
    "splits": {
        "train": split(12346, truncated=20, truncated_share=0.0016, cut_tokens=1234),
        "validation": split(86),
        "test": split(0),
    },
    "duplicates": {"exact": 3, "masked": 41},
    "leakage": {
        "validation": leak(0, 0),
        "test": leak(0, 0),
        "random_split": {"validation": leak(11, 43), "test": leak(0, 0)},
    },
    "balance": {
        "severity": {"info": {"train": 8000, "validation": 50, "test": 0}, "low": {"train": 4346, "validation": 36}},
        "category": {f"c{n}": {"train": 10 - n, "validation": 0} for n in range(10)},
    },
    "where": [{"dataset": 0, "where": "x", "kept": 12388, "left_out": 12}],
    "routes": [{"dataset": 0, "when": "x", "take": "rest", "match": 5, "rest": 12383}],
    "redacted": [{"dataset": 0, "pattern": "10", "replaced": 4}],
    "weights": [{"dataset": 1, "weight": 2.5, "rows": 30, "drawn": 75}],
    "packing": {"rows": 12346, "sequences": 800, "length": 2048, "efficiency": 0.993},
    "warnings": ["one", "two"],
}


def test_a_full_report(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "full.txt", "\n".join(datasummary.lines(FULL)) + "\n")


def test_a_plain_report(golden: Callable[[Path, str], None]) -> None:
    """What there is nothing to say about is left out."""
    found = copy.deepcopy(FULL)
    for name in ("where", "routes", "redacted", "weights", "packing", "balance"):
        del found[name]
    found |= {"rows": {"read": 6, "kept": 6, "dropped": {}}, "files": [], "warnings": []}
    found["datasets"] = [found["datasets"][0] | {"dropped": {}}]
    found["splits"] = {"train": split(6), "validation": split(0), "test": split(0)}
    golden(GOLDEN / "plain.txt", "\n".join(datasummary.lines(found)) + "\n")


def test_columns_stand_under_each_other() -> None:
    lines = [line for line in datasummary.lines(FULL) if line.startswith(("  train ", "  validation  "))]
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["train", "12,346", "118", "161", "2,048", "20", "14", "15", "17%"]
