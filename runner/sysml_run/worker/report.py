"""The report stage: one self-contained page about the run, and its figures as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sysml_run import manifest, peaks, schedule
from sysml_run.measures import duration, measures, percent, sample
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, whole_folder, write_text

from . import asrun, copytable, figures, outcome
from .card import TEMPLATES
from .outcome import Outcome

ANSWERS, WORST = 8, 8
LONGEST = 2000  # characters of a prompt or answer on the page
BALANCED = 12  # values of a field
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
CAPTIONS = {
    "loss": "Loss in training and on validation rows",
    "learning_rate": "Learning rate by step",
    "tokens_per_second": "Tokens per second by step",
    "lengths": "Rows by length in tokens",
}
LABELS = {
    "batch": "micro batch x accumulation x devices",
    "lora_modules": "LoRA modules",
    "precision": "mixed precision",
}
Pairs = Iterator[tuple[str, Any]]


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `report.html` and `figures/`; what the run does not have is said in a sentence."""
    found = outcome.read(rundir)
    drawn = draw(found, recipe)
    with whole_folder(rundir / "figures") as folder:
        for name, svg in drawn.items():
            write_text(folder / f"{name}.svg", svg)
    write_text(rundir / "report.html", page(found, drawn))
    return {"report": "report.html", "figures": [f"figures/{name}.svg" for name in drawn]}


def draw(found: Outcome, recipe: Recipe) -> dict[str, str]:
    """The figures that there is something to draw for, by name."""
    sequence_len = found.values["prompt"]["sequence_len"]
    made = {
        "loss": figures.loss(found.metrics, found.evaluation),
        "learning_rate": figures.learning_rate(found.metrics, planned(found, recipe)),
        "tokens_per_second": figures.speed(found.metrics),
        "lengths": figures.lengths(found.data.get("lengths", {}), sequence_len),
    }
    return {name: svg for name, svg in made.items() if svg is not None}


def planned(found: Outcome, recipe: Recipe) -> figures.Points:
    """The learning rate of each step by the recipe's schedule; none where losses decide, or no step was made."""
    total = found.train.get("step0", {}).get("steps", 0)
    if recipe.optimizer.lr_scheduler == schedule.PLATEAU or not total:
        return []
    return [(step, schedule.learning_rate(recipe, step - 1, total)) for step in range(1, total + 1)]


def page(found: Outcome, drawn: Mapping[str, str]) -> str:
    """The HTML. Everything but our own figures is escaped: answers of a model are hostile input."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(clean=clean, cut=cut, percent=percent, duration=duration, number=number, heading=heading)
    svgs = {name: Markup(figures.inline(svg, CAPTIONS[name])) for name, svg in drawn.items()}
    return environment.get_template("report.html.j2").render(
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        found=found,
        values=found.values,
        figures=svgs,
        measures=measures(found.evaluation),
        sample=sample(found.evaluation),
        tested=measures(found.evaluation, "test"),
        test_sample=sample(found.evaluation, "test"),
        classes={field: list(by_class.items()) for field, by_class in found.evaluation.get("classes", {}).items()},
        merged=found.evaluation.get("merged"),
        copies=copytable.table(found.evaluation),
        facts=list(facts(found)),
        trained=list(trained(found)),
        step0=list(step0(found)),
        splits={name: split for name, split in found.data.get("splits", {}).items() if split["rows"]},
        balance=balance(found),
        files=manifest.data(found.records.get("prepare", {})),
        answers=[compared(row) for row in found.generations[:ANSWERS]],
        worst=[compared(row) for row in found.worst[:WORST]],
        recipe=sections(found),
        stages=[(stage, record["seconds"]) for stage, record in found.records.items() if "seconds" in record],
        versions=found.train.get("versions") or manifest.versions(),
    )


def facts(found: Outcome) -> Pairs:
    """The line under the title."""
    hardware = found.values["hardware"]
    yield "Base model", found.base_name
    yield "Method", found.method
    yield "Hardware", f"{hardware['accelerator']}, {hardware['precision']}"
    if found.train.get("started") and not found.elsewhere:
        yield "Trained", str(found.train["started"])[:16].replace("T", " ") + " UTC"
    if "training_seconds" in found.train:
        yield "Training took", duration(found.train["training_seconds"])


def trained(found: Outcome) -> Pairs:
    """How far and how fast; what was not recorded is left out."""
    done = found.train
    for name in ("steps", "best_step", "tokens", "tokens_per_second", "resumed_from"):
        if done.get(name) is not None:
            yield heading(name.replace("_", " ")), number(done[name])
    if done.get("memory"):
        yield "Memory at the peak", peaks.words(done["memory"], found.values)
    losses = [line["loss"] for line in found.metrics if line.get("loss") is not None]
    if losses:
        yield "First and last logged loss", f"{losses[0]:.3f}, {losses[-1]:.3f}"


def step0(found: Outcome) -> Pairs:
    """What was checked on the built trainer before the first step, in the order it was recorded."""
    for name, value in found.train.get("step0", {}).items():
        if isinstance(value, list):
            shown = " x ".join(map(str, value)) if name == "batch" else ", ".join(map(str, value))
        else:
            shown = number(value)
        yield heading(LABELS.get(name, name.replace("_", " "))), shown


def balance(found: Outcome) -> dict[str, list[tuple[str, dict[str, int]]]]:
    """The commonest values of each counted field, with their rows in each split; the rest in one line."""
    tables = {}
    for field, values in found.data.get("balance", {}).items():
        rows = list(values.items())
        rest = [counts for _, counts in rows[BALANCED:]]
        tables[field] = rows[:BALANCED]
        if rest:
            sums = {name: sum(counts.get(name, 0) for counts in rest) for name in rest[0]}
            tables[field].append((f"{len(rest)} more", sums))
    return tables


def compared(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with whether each answer is, but for white space at its ends, the expected one."""
    wanted = str(row.get("expected", "")).strip()
    same = {side: row.get(side) is not None and str(row[side]).strip() == wanted for side in ("before", "after")}
    return {**row, "same": same}


def sections(found: Outcome) -> dict[str, list[tuple[str, Any, str]]]:
    """Key, value and source of every setting, by section; those of no section come first, under an empty name."""
    grouped: dict[str, list[tuple[str, Any, str]]] = {"": []}
    for pointer, value in asrun.leaves(asrun.values(found.values)):
        section, _, key = pointer.partition(".")
        source = asrun.source(found.sources.get(pointer, ""))
        grouped.setdefault(section if key else "", []).append((pointer, value, source))
    return grouped


def heading(label: str) -> str:
    """With a capital, unless it begins with a name from code."""
    return label if "_" in label.split()[0] else label[:1].upper() + label[1:]


def clean(text: Any) -> str:
    """Text with what has no shape, or would turn the line around, written as its code point."""
    return ODD.sub(lambda odd: f"\\u{ord(odd.group()):04x}", str(text))


def cut(text: str, where: str) -> str:
    """The start of a long text, and where the rest is."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n… {len(text) - LONGEST:,} more characters in {where}"


def number(value: Any) -> str:
    """Whole numbers with thousands separated, others with four digits; anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
