"""The report's figures as SVG text, the same bytes for the same numbers; colours can follow the page they stand in."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Points = list[tuple[float, float]]

SIZE = (5.0, 2.9)  # inches; 360 by 209 units of the SVG's own
MOST_POINTS = 600
COLOURS = {
    "ink": "#1f1f1d",
    "muted": "#6b6a66",
    "rule": "#dcdad4",
    "paper": "#ffffff",
    "first": "#23649e",
    "second": "#b3541e",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "text.color": COLOURS["ink"],
    "figure.facecolor": COLOURS["paper"],
    "axes.facecolor": COLOURS["paper"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}


def loss(metrics: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> str | None:
    """Training loss of each logged step, validation loss where it was measured; None without a finite point."""
    trained, during = series(metrics, "loss"), series(metrics, "eval_loss")
    outside = ends(evaluation, max((step for step, _ in [*trained, *during]), default=0))
    if not trained and not during:
        return None

    def draw(axes: Any) -> None:
        axes.plot(*split(thinned(trained)), color=COLOURS["first"], label="training")
        points = {"color": COLOURS["second"], "linestyle": "none", "marker": "o", "markersize": 5}
        if during:
            axes.plot(*split(during), **points, label="validation, during training")
        if outside:
            hollow = points | {"markerfacecolor": COLOURS["paper"], "markeredgewidth": 1.4}
            axes.plot(*split(outside), **hollow, label="validation, before and after")
        axes.set_ylim(0, room([*trained, *during, *outside]))
        axes.legend(loc="best")

    return figure("loss", "Loss, nats per token", "step", draw)


def learning_rate(metrics: Sequence[Mapping[str, Any]], planned: Points | None = None) -> str | None:
    """The learning rate of each logged step, over what the schedule says of every step; None without a logged one."""
    logged = series(metrics, "learning_rate")
    if not planned or not logged:
        return line("learning_rate", "Learning rate", logged)

    def draw(axes: Any) -> None:
        axes.plot(*split(planned), color=COLOURS["muted"], linewidth=1, label="schedule")
        points = {"linestyle": "none", "marker": "o", "markersize": 3}
        axes.plot(*split(thinned(logged)), **points, color=COLOURS["first"], label="logged")
        axes.set_ylim(0, room([*planned, *logged]))
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
        axes.legend(loc="best")

    return figure("learning_rate", "Learning rate", "step", draw)


def speed(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """Tokens trained on a second, padding excluded."""
    return line("tokens_per_second", "Tokens per second", series(metrics, "tokens_per_second"))


def lengths(histograms: Mapping[str, Any], sequence_len: int) -> str | None:
    """Share of each split's rows by length in tokens, with the longest allowed length marked."""
    filled = {name: found for name, found in histograms.items() if sum(found["counts"])}
    if not filled:
        return None

    def draw(axes: Any) -> None:
        colours = (COLOURS["first"], COLOURS["second"], COLOURS["muted"])
        for (name, found), colour in zip(filled.items(), colours, strict=False):
            total = sum(found["counts"])
            shares = [100 * count / total for count in found["counts"]]
            axes.stairs(shares, found["edges"], color=colour, linewidth=1.5, label=name)
        mark(axes, sequence_len, max(found["edges"][-1] for found in filled.values()))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.legend(loc="best")

    return figure("lengths", "Rows by length, % of each split", "tokens", draw)


def mark(axes: Any, sequence_len: int, longest: float) -> None:
    """A dashed line at `sequence_len`, unless it would squeeze the rows to one side; the axis' label says which."""
    near = sequence_len <= 1.6 * longest
    if near:
        axes.axvline(sequence_len, color=COLOURS["muted"], linestyle=(0, (3, 3)), linewidth=1)
    axes.set_xlabel(f"tokens ({'dashed line' if near else 'beyond the axis'}: sequence_len {sequence_len})")


def line(name: str, title: str, points: Points) -> str | None:
    """One series over steps; None when it has no finite point."""
    if not points:
        return None

    def draw(axes: Any) -> None:
        axes.plot(*split(thinned(points)), color=COLOURS["first"])
        axes.set_ylim(0, room(points))
        axes.yaxis.set_major_formatter(lambda value, _: short(value))

    return figure(name, title, "step", draw)


def room(points: Points) -> float:
    """The top of an axis from 0 that leaves the highest point some air."""
    return 1.08 * max(value for _, value in points) or 1.0


def short(value: float) -> str:
    """A tick: 250, 0.5, 2.5e-4."""
    return f"{value:g}" if value == 0 or abs(value) >= 0.01 else f"{value:.2g}".replace("e-0", "e-")


def figure(name: str, title: str, across: str, draw: Callable[[Any], None]) -> str:
    """One panel; its ids begin with `name`, so that several figures can stand in one page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context({**STYLE, "svg.hashsalt": name}):
        made = Figure(figsize=SIZE)
        axes = made.subplots()
        axes.set_title(title)
        axes.set_xlabel(across)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        draw(axes)
        text = io.StringIO()
        made.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return tidied(text.getvalue(), name)


def tidied(svg: str, name: str) -> str:
    """Ids of its own, and the reader's own font; matplotlib names its bundled one, which sets the widths it assumes."""
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    return re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)


def inline(svg: str, label: str) -> str:
    """The figure as part of a page: colours become the page's custom properties, the size is the page's to choose."""
    tag, rest = svg[svg.index("<svg") :].split(">", 1)
    for name, colour in COLOURS.items():
        rest = rest.replace(colour, f"var(--{name})")
    tag = re.sub(r' (?:width|height)="[^"]*"', "", tag)
    return tag.replace("<svg", f'<svg role="img" aria-label="{label}"') + ">" + rest


def series(metrics: Sequence[Mapping[str, Any]], name: str) -> Points:
    """(step, value) of the lines that have a finite value."""
    found = [(line["step"], line.get(name)) for line in metrics]
    return [(step, value) for step, value in found if isinstance(value, int | float) and math.isfinite(value)]


def thinned(points: Points) -> Points:
    """At most 600 points: the mean of as many neighbours as that takes."""
    width = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def split(points: Points) -> tuple[list[float], list[float]]:
    return [across for across, _ in points], [up for _, up in points]


def ends(evaluation: Mapping[str, Any], last: float) -> Points:
    """Validation loss at step 0 and at the last step."""
    before, after = (evaluation.get(side, {}).get("loss") for side in ("before", "after"))
    return [(step, value) for step, value in ((0, before), (last, after)) if value is not None and math.isfinite(value)]
