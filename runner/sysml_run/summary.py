"""The end of a run on a terminal: before and after, where things are, and how long each stage took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import crossval, peaks
from .measures import MINUS, Measure, duration, measures, part, sample
from .rundir import RunDir, read_json

PLACES = (
    ("model", "model"),
    ("merged", "merged"),
    ("quantized", "quantized"),
    ("package", "package"),
    ("evaluation", "evaluation.json"),
    ("report", "report.html"),
)


def summary(rundir: RunDir) -> str:
    """Plain text in aligned columns, for whatever stages the run has; never fails for what is not there."""
    blocks = [_head(rundir), _numbers(rundir), _numbers(rundir, "test"), _folds(rundir), _places(rundir)]
    blocks.append(_ending(rundir))
    return "\n\n".join("\n".join(lines) for lines in map(list, blocks) if lines)


def records(rundir: RunDir) -> dict[str, dict[str, Any]]:
    """The records of the stages that are done, in the order they started."""
    found = {path.stem: dict(read_json(path)) for path in sorted((rundir / "records").glob("*.json"))}
    return dict(sorted(found.items(), key=lambda item: str(item[1].get("started", ""))))


def near(path: Path) -> str:
    """The path from the current folder when it is below it, else the whole of it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Columns two blanks apart, those in `right` aligned to the right; no blanks at the ends of lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if at in right else "<" for at in range(len(widths))]
    lines = (
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)) for row in rows
    )
    return [line.rstrip() for line in lines]


def _head(rundir: RunDir) -> Iterator[str]:
    values = read_json(rundir.recipe)["values"]
    yield f"{values['name']}: {values['model']['base_model']}, {near(rundir.path)}"


def _numbers(rundir: RunDir, of: str = "validation") -> Iterator[str]:
    if not rundir.evaluation.is_file():
        return
    evaluation = read_json(rundir.evaluation)
    rows = [("", "before", "after", "change", ""), *map(_row, measures(evaluation, of))]
    if len(rows) > 1:
        yield from table(rows, right=(1, 2, 3))
        yield sample(evaluation, of)


def _folds(rundir: RunDir) -> Iterator[str]:
    """Of cross-validation: the mean of every figure over the folds, and how far single folds are from it."""
    path = rundir / crossval.NAME
    if not path.is_file():
        return
    found = read_json(path)
    means = crossval.means(found)
    for of in [name for name in ("validation", "test") if part(means, name)]:
        spread = part(found, of)["after"]
        rows = [_spread_row(each, spread[each.name]["std"]) for each in measures(means, of)]
        yield from (*table([("", "before", "after", "+/-", "change"), *rows], right=(1, 2, 3, 4)), "")
    yield f"Means of {found['folds']} folds, which validated {found['rows']:,} rows; +/- is one standard deviation."
    yield "Without evaluation.cross_validation the same recipe makes the model."


def _spread_row(measure: Measure, std: float | None) -> tuple[str, ...]:
    label, before, after, change, _ = _row(measure)
    return label, before, after, _plain(measure.shown(std)), change


def _plain(cell: str) -> str:
    return cell.replace("\N{EN DASH}", "-").replace(MINUS, "-")


def _row(measure: Measure) -> tuple[str, ...]:
    notes = [measure.verdict if measure.verdict == "worse" else "", measure.caution]
    before, after = measure.shown(measure.before), measure.shown(measure.after)
    cells = (measure.label, before, after, measure.change, "; ".join(filter(None, notes)))
    return tuple(map(_plain, cells))


def _places(rundir: RunDir) -> Iterator[str]:
    rows = [(label, near(rundir / name)) for label, name in PLACES if (rundir / name).exists()]
    published = records(rundir).get("package", {}).get("published")
    if published:
        rows.append(("published", near(Path(published))))
    if rows:
        yield from table(rows)


def _ending(rundir: RunDir) -> Iterator[str]:
    yield from _memory(rundir)
    yield from _times(rundir)


def _memory(rundir: RunDir) -> Iterator[str]:
    found = records(rundir).get("train", {}).get("memory")
    if found:
        yield f"memory at the peak of training: {peaks.words(found, read_json(rundir.recipe)['values'])}"


def _times(rundir: RunDir) -> Iterator[str]:
    timed = [(stage, record["seconds"]) for stage, record in records(rundir).items() if "seconds" in record]
    if timed:
        each = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in timed)
        yield f"{each}; {duration(sum(seconds for _, seconds in timed))} in all"
