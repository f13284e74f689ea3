"""Before and after as people read them: names, formats, which way is better, and what a share must be held against."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["share", "loss", "score", "error", "number"]

HIGHER_IS_BETTER = ("share", "score")
WHOLE: Mapping[str, tuple[str, Kind]] = {
    "json_valid": ("valid JSON", "share"),
    "schema_valid": ("valid by the schema", "share"),
    "exact_match": ("exact answers", "share"),
    "field_accuracy": ("right fields", "share"),
    "rouge_l": ("ROUGE-L", "score"),
    "tool_calls": ("right calls of tools", "share"),
}
FIELD: Mapping[str, tuple[str, Kind]] = {
    "accuracy": ("accuracy", "share"),
    "f1_macro": ("F1, macro", "score"),
    "f1_micro": ("F1, micro", "score"),
    "mae": ("mean error", "error"),
}
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Measure:
    """One metric before and after training; shares are 0..1, None is what could not be measured.

    `majority` is the share of the commonest answer: what always giving that one would score.
    """

    name: str
    label: str
    kind: Kind
    before: float | None
    after: float | None
    majority: float | None = None

    def shown(self, value: float | None) -> str:
        """Shares in percent with one decimal, losses and F1 with three decimals, errors with two."""
        if value is None:
            return "\N{EN DASH}"
        if self.kind == "share":
            return percent(value)
        return f"{value:.2f}" if self.kind == "error" else f"{value:.3f}"

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `same` where both are shown alike; empty when that cannot be said."""
        if self.before is None or self.after is None or self.kind == "number":
            return ""
        if not math.isfinite(self.after):
            return "worse"
        if self.shown(self.before) == self.shown(self.after):
            return "same"
        return "better" if (self.after > self.before) == (self.kind in HIGHER_IS_BETTER) else "worse"

    @property
    def change(self) -> str:
        """Points for shares, percent of what it was for losses, the difference for the rest."""
        if self.before is None or self.after is None or not math.isfinite(self.after - self.before):
            return ""
        step = self.after - self.before
        if self.kind == "share":
            return f"{signed(100 * step, 1)} points"
        if self.kind == "loss":
            return f"{signed(100 * step / self.before, 1)} %" if self.before else ""
        return signed(step, 2 if self.kind == "error" else 3)

    @property
    def caution(self) -> str:
        """What to hold an accuracy against; empty for other metrics."""
        if self.majority is None:
            return ""
        words = f"always the commonest answer: {percent(self.majority)}"
        beaten = self.after is not None and self.after > self.majority
        return words if beaten or self.after is None else f"{words}, which is not beaten"


def measures(evaluation: Mapping[str, Any], rows: str = "validation") -> list[Measure]:
    """Every metric of `evaluation.json`, or of its part for the `test` rows, in its order.

    A majority share stands beside its accuracy.
    """
    found = part(evaluation, rows)
    return list(_measures(found.get("before") or {}, found.get("after") or {}, rows))


def part(evaluation: Mapping[str, Any], rows: str) -> Mapping[str, Any]:
    """What was measured on `validation` or `test` rows; empty for those that there are none of."""
    return evaluation if rows == "validation" else evaluation.get(rows) or {}


def _measures(before: Mapping[str, Any], after: Mapping[str, Any], rows: str) -> Iterator[Measure]:
    for name in dict.fromkeys([*before, *after]):
        field, _, metric = name.rpartition(".")
        if metric != "majority":
            label, kind = _wording(name, rows)
            majority = f"{field}.majority"
            beside = after.get(majority, before.get(majority)) if metric == "accuracy" else None
            yield Measure(name, label, kind, before.get(name), after.get(name), beside)


def _wording(name: str, rows: str) -> tuple[str, Kind]:
    if name == "loss":
        return f"{rows} loss", "loss"
    field, _, metric = name.rpartition(".")
    if metric in FIELD:
        label, kind = FIELD[metric]
        return f"{field} {label}", kind
    return WHOLE.get(name, (name, "number"))


def sample(evaluation: Mapping[str, Any], of: str = "validation") -> str:
    """What the numbers rest on, in one sentence; empty when nothing was measured."""
    found = part(evaluation, of)
    rows, generated = found.get("rows"), found.get("generated")
    if not rows:
        return ""
    text = f"Loss on {rows:,} {of} rows"
    if not generated:
        return f"{text}; no answers were generated."
    return f"{text}; answers on {generated:,} of them, so one answer is {100 / generated:.1f} points."


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def signed(value: float, digits: int) -> str:
    """With + or a true minus sign; none before what rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `2 min 51 s`, `3 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
