"""Make up security findings in sys-scan's own layout: `python examples/make_findings.py --out findings.tar.gz`.

Every finding is invented from the tables in finding_rules: no real host was scanned, nothing is copied from real data.
Severity follows from what a finding says (two features of its category together), so there is something to learn. The
same rows and seed give the same bytes: nothing here reads a clock.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from finding_archive import pack
from finding_rules import KINDS, MIX, SCORES, Kind, Spec

Finding = dict[str, Any]

START = datetime(2025, 1, 1)
ROWS, SEED, FEWEST = 600, 7, 100
WEIGHT = {"info": 0.2, "low": 0.4, "medium": 0.6, "high": 0.8, "critical": 1.0}
BASELINE = ("existing", "existing", "existing", "unknown", "new")
MARKS = {
    "info": ["low_priority"],
    "low": ["low_priority"],
    "medium": ["moderate_risk"],
    "high": ["high_priority", "needs_attention"],
    "critical": ["high_priority", "needs_attention"],
}


def findings(rows: int = ROWS, seed: int = SEED) -> list[Finding]:
    """`rows` findings in an order drawn from `seed`; each category has its share, each severity its share of that."""
    rng = random.Random(seed)
    wanted = [
        (kind, severity, place)
        for kind, share in zip(KINDS, shares(rows, [kind.rows for kind in KINDS]), strict=True)
        for place, severity in enumerate(mixed(share))
    ]
    rng.shuffle(wanted)
    return [finding(kind, severity, place, n, rng) for n, (kind, severity, place) in enumerate(wanted)]


def mixed(count: int) -> list[str]:
    """`count` severities in the proportions of MIX, in its order."""
    parts = zip(MIX, shares(count, list(MIX.values())), strict=True)
    return [severity for severity, part in parts for _ in range(part)]


def shares(total: int, weights: list[int]) -> list[int]:
    """`total` split in proportion to `weights` into whole numbers, by largest remainder."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_rest = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in by_rest[: total - sum(parts)]:
        parts[i] += 1
    return parts


def finding(kind: Kind, severity: str, place: int, n: int, rng: random.Random) -> Finding:
    """The `n`th finding, of that severity: a cell of the kind's grid, shown by fields and told in words.

    `place` counts within the category; the facts beside the point take turns by it.
    """
    row, column = rng.choice(kind.cells(severity))
    fields = observed(kind, row, column, n, rng)
    aside = fill(kind.aside[place % len(kind.aside)], fields, rng)
    score = SCORES[severity][column]
    reasons = f"{kind.one[row].reason} and {kind.two[column].reason}"
    return {
        "id": kind.id.format_map(fields | {"severity": severity}),
        "title": rng.choice(kind.titles).format_map(fields),
        "severity": severity,
        "risk_score": float(score),
        "base_severity_score": score,
        "description": rng.choice(kind.descriptions).format_map(fields),
        "metadata": {name: fields[name] for name in kind.metadata if name in fields} | aside,
        "operational_error": False,
        "category": kind.category,
        "tags": [*kind.tags, rng.choice(("baseline:new", "baseline:existing")), *MARKS[severity]],
        "risk_subscores": subscores(severity, rng),
        "correlation_refs": [],
        "baseline_status": rng.choice(BASELINE),
        "severity_source": "raw",
        "probability_actionable": round(min(1.0, max(0.0, score / 100 + rng.uniform(-0.1, 0.1))), 3),
        "rationale": f"Because {reasons}, this {kind.category} finding is {severity}.",
        "risk_total": score,
        "_processed_at": (START + timedelta(seconds=n)).isoformat(),
        "_data_quality": 1.0,
    }


def observed(kind: Kind, row: int, column: int, n: int, rng: random.Random) -> dict[str, Any]:
    """Everything texts and metadata may show of a finding in that cell of the grid; never its severity."""
    one, two = kind.one[row], kind.two[column]
    fields: dict[str, Any] = {"n": n, "hex8": f"{rng.getrandbits(32):08x}"}
    phrases = {"one": one.said, "two": two.said}
    for group in (kind.draw, rng.choice(one.shows), rng.choice(two.shows), kind.then, phrases):
        for name, spec in group.items():
            fields[name] = draw(spec, fields, rng)
    return fields


def draw(spec: Spec, fields: Mapping[str, Any], rng: random.Random) -> Any:
    """A value from a spec of the tables; see finding_rules.kinds.Spec."""
    match spec:
        case tuple():
            return draw(rng.choice(spec), fields, rng)
        case range():
            return rng.choice(spec)
        case str():
            return spec.format_map(fields)
        case list():
            return [draw(item, fields, rng) for item in spec]
        case dict():
            return fill(spec, fields, rng)
        case _:
            return spec


def fill(specs: Mapping[str, Spec], fields: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    return {name: draw(spec, fields, rng) for name, spec in specs.items()}


def subscores(severity: str, rng: random.Random) -> dict[str, float]:
    """Numbers in 0..1 beside the risk score; noise scaled by severity, as sys-scan's own generator draws them."""
    parts = {name: round(rng.uniform(0.1, 1.0) * WEIGHT[severity], 2) for name in ("impact", "exposure", "anomaly")}
    return parts | {"confidence": round(rng.uniform(0.7, 0.95), 2)}


def summary(made: Iterable[Finding], out: Path) -> str:
    """What was written, for people: rows, bytes, and the rows of each severity and category."""
    made = list(made)
    lines = [f"{out}: {len(made)} findings, {out.stat().st_size:,} bytes"]
    for field, names in (("severity", list(MIX)), ("category", [kind.category for kind in KINDS])):
        counts = Counter(item[field] for item in made)
        lines.append(f"  {field}: " + ", ".join(f"{name} {counts[name]}" for name in names))
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and write the archive."""
    parser = argparse.ArgumentParser(description="Make up security findings in sys-scan's archive layout.")
    parser.add_argument("--out", type=Path, required=True, help="the .tar.gz to write")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"how many findings (default {ROWS}, at least {FEWEST})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"another seed, other findings (default {SEED})")
    options = parser.parse_args()
    if options.rows < FEWEST:
        parser.error(f"--rows {options.rows}: at least {FEWEST} are needed for every category to appear")
    made = findings(options.rows, options.seed)
    try:
        pack(made, options.out)
    except OSError as error:
        parser.error(f"cannot write {options.out}: {error.strerror}")
    print(summary(made, options.out))


if __name__ == "__main__":
    main()
