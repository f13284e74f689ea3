"""The quantized copies of a run beside the weights they were made from, as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sysml_run.measures import Measure, measures, percent, signed

NOTHING = "\N{EN DASH}"
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """`names` of the columns, the unquantized weights first, and `rows` of a label and one cell a column."""

    names: list[str]
    rows: list[tuple[str, list[str]]]


def table(evaluation: Figures) -> Table | None:
    """None where no copy was measured."""
    copies: dict[str, Figures] = evaluation.get("quantized") or {}
    if not copies:
        return None
    whole = next(iter(copies.values()))["unquantized"]
    return Table(["unquantized", *copies], list(_rows(whole, list(copies.values()))))


def _rows(whole: Figures, copies: Sequence[Figures]) -> Iterator[tuple[str, list[str]]]:
    every = [whole, *copies]
    yield "Size", [f"{each['bytes'] / 1e6:,.1f} MB" for each in every]
    yield "Bits of a weight", [f"{each['bits_per_weight']:.2f}" for each in every]
    yield "Perplexity", [f"{each['perplexity']:.4g}" for each in every]
    yield "Higher by", [NOTHING, *(f"{signed(100 * each['perplexity_increase'], 2)} %" for each in copies)]
    yield "Likeliest token the same", [NOTHING, *(percent(each["top_token_agreement"]) for each in copies)]
    shown = [{measure.name: measure for measure in _measured(each)} for each in every]
    for name, first in shown[0].items():
        yield first.label[:1].upper() + first.label[1:], [_cell(each.get(name)) for each in shown]
    yield "Loads in", [f"{each['load_seconds']:.1f} s" for each in every]
    yield "Tokens made a second", [f"{each['tokens_per_second']:,.1f}" for each in every]
    yield "Read by", [each["reader"] for each in every]


def _measured(figures: Figures) -> list[Measure]:
    return measures({"after": figures["metrics"]})


def _cell(measure: Measure | None) -> str:
    return measure.shown(measure.after) if measure is not None else NOTHING
