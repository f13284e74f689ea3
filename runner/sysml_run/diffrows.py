"""A diff -> rows of words, which the renderers lay out: keys of one section together, numbers with their units."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import excerpt, schema
from .diff import ABSENT, Change, Diff
from .position import Pointer, dotted
from .resolve import DEFAULT
from .wording import shown

DERIVED = "derived: "
LETTERS = ("A", "B")
NOWHERE = "-"
WORD = 40  # characters of one value among others
Held = tuple[Pointer, Any, str | None]  # a key, its value and where that comes from


@dataclass(frozen=True)
class Row:
    """One line of a table; `reasons` say why the plan derived a value, `A: …`; texts are whole, `long` ones too."""

    name: str
    before: str
    after: str
    before_source: str = ""
    after_source: str = ""
    reasons: tuple[str, ...] = ()


def changes(found: Diff) -> list[Row]:
    """A row for each key; what only one side has is put together by section, without what is empty."""
    rows = []
    for section, group in itertools.groupby(_ordered(found.changed), key=lambda change: change.section):
        together = list(group)
        if section is None:
            rows += [_single(change, found) for change in together]
        elif any(value not in (None, ABSENT) for change in together for value in (change.before, change.after)):
            rows.append(_section(section, together, found))
    return rows


def _ordered(changed: Sequence[Change]) -> list[Change]:
    """Changes of a section together, at the place of its first."""
    places: dict[Any, int] = {}
    for number, change in enumerate(changed):
        places.setdefault(change.section, number)
    at = {id(change): number for number, change in enumerate(changed)}
    return sorted(changed, key=lambda change: at[id(change)] if change.section is None else places[change.section])


def _single(change: Change, found: Diff) -> Row:
    sources = (change.before_source, change.after_source)
    reasons = (
        f"{letter}: {source.removeprefix(DERIVED)}"
        for letter, source in zip(LETTERS, sources, strict=True)
        if source is not None and source.startswith(DERIVED)
    )
    return Row(
        _name(change.pointer, change.before_pointer),
        value(change.before, change.pointer),
        value(change.after, change.pointer),
        _label([change.before_source], found.before.name, "A"),
        _label([change.after_source], found.after.name, "B"),
        tuple(reasons),
    )


def _section(section: Pointer, together: Sequence[Change], found: Diff) -> Row:
    if len(together) == 1 and together[0].pointer[:-1] == section:
        return _single(together[0], found)
    before = [(change.pointer, change.before, change.before_source) for change in together]
    after = [(change.pointer, change.after, change.after_source) for change in together]
    return Row(
        _name(section, together[0].before_pointer[: len(section)]),
        _listed(section, before),
        _listed(section, after),
        _label(_sources(before), found.before.name, "A"),
        _label(_sources(after), found.after.name, "B"),
    )


def _name(at: Pointer, before: Pointer) -> str:
    """A key by its place in the second recipe, and that in the first where an item of a list has moved."""
    return dotted(at) if at == before else f"{dotted(at)} (A: {dotted(before)})"


def _sources(held: Sequence[Held]) -> list[str | None]:
    """Of the keys that are there, else of what stands in their place."""
    return [source for _, each, source in held if each is not ABSENT] or [source for *_, source in held]


def _listed(section: Pointer, held: Sequence[Held]) -> str:
    """`r=16, alpha=32 and 4 defaults`, all of them where nothing else is written, or `none` where there is nothing."""
    there = [one for one in held if one[1] not in (None, ABSENT, [])]
    told = [one for one in there if one[2] != DEFAULT] or there
    words = (f"{dotted(at[len(section) :])}={excerpt.clipped(value(each, at), WORD)}" for at, each, _ in told)
    more = len(there) - len(told)
    rest = f" and {more} default{'s' if more > 1 else ''}" if more else ""
    return ", ".join(words) + rest or "none"


def _label(sources: Sequence[str | None], name: str, letter: str) -> str:
    """`A:16` for a line of that recipe, `A:16-19` for several, else the source as it is, without the plan's reason."""
    written = [source for source in sources if source not in (None, DEFAULT)]
    if not written:
        return DEFAULT if DEFAULT in sources else NOWHERE
    prefix = f"{name}:"
    lines = sorted(int(source.removeprefix(prefix)) for source in written if source and source.startswith(prefix))
    if len(lines) < len(written):
        other = next(source for source in written if source and not source.startswith(prefix))
        return "derived" if other.startswith(DERIVED) else excerpt.clipped(other, WORD)
    return f"{letter}:{lines[0]}" if lines[0] == lines[-1] else f"{letter}:{lines[0]}-{lines[-1]}"


def value(found: Any, at: Pointer) -> str:
    """A value in words: text without quotes where it needs none, paths from the current folder."""
    if found is ABSENT:
        return NOWHERE
    if found is None:
        return "none"
    if isinstance(found, dict):
        return ", ".join(f"{key}={value(each, (*at, key))}" for key, each in found.items())
    if isinstance(found, list):
        return f"[{', '.join(value(each, (*at, number)) for number, each in enumerate(found))}]"
    if not isinstance(found, str):
        return shown(int(found) if isinstance(found, float) and found.is_integer() and abs(found) < 1e15 else found)
    text = near(found) if is_path(at) else found
    return text if text.strip() == text != "" and text != "none" else json.dumps(text, ensure_ascii=False)


def is_path(at: Pointer) -> bool:
    """Whether the schema says that a file or folder stands here."""
    return any("x-path" in one for node in schema.find(at) for one in schema.branches(node) or (node,))


def near(path: str) -> str:
    """From the current folder when it is below it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


@dataclass(frozen=True)
class Fact:
    """One line of consequences: the names it is made of, how they are written, and why they may be unknown."""

    label: str
    names: tuple[str, ...]
    written: Callable[..., str]
    unknown: str = ""


def count(number: int) -> str:
    return f"{number:,}"


def rate(number: float) -> str:
    return f"{number:.4g}"


def size(number: int) -> str:
    """Bytes in decimal units."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return f"{number} bytes"


def _batch(effective: int, micro: int, accumulation: int, world: int) -> str:
    return f"{effective:,} ({micro} x {accumulation} accumulated x {world} device{'s' if world != 1 else ''})"


def _trained(trainable: int, total: int) -> str:
    return f"{trainable:,} ({100 * trainable / total:.2f} %)"


NOT_COUNTED = "rows not prepared here"
NOT_HERE = "data not here"
NO_SIZES = "sizes of the model not at hand"
NO_STATE = "not known of this model on this hardware"
BATCH = ("batch.effective", "batch.micro", "batch.accumulation", "batch.world_size")
FACTS = (
    Fact("data", ("data.sha256",), lambda digest: f"sha256 {digest[:12]}", NOT_HERE),
    Fact("training rows", ("rows.train",), count, NOT_COUNTED),
    Fact("validation rows", ("rows.validation",), count, NOT_COUNTED),
    Fact("test rows", ("rows.test",), count, NOT_COUNTED),
    Fact("rows a step", BATCH, _batch),
    Fact("steps an epoch", ("steps.per_epoch",), count, NOT_COUNTED),
    Fact("steps", ("steps.total",), count, NOT_COUNTED),
    Fact("warm-up steps", ("steps.warmup",), count, NOT_COUNTED),
    Fact("learning rate, start", ("learning_rate.start",), rate),
    Fact("learning rate, after warm-up", ("learning_rate.after_warmup",), rate),
    Fact("learning rate, half way", ("learning_rate.half",), rate, NOT_COUNTED),
    Fact("learning rate, end", ("learning_rate.end",), rate, NOT_COUNTED),
    Fact("tokens a step, mean", ("tokens_per_step.mean",), count, NOT_COUNTED),
    Fact("tokens a step, at most", ("tokens_per_step.at_most",), count),
    Fact("parameters", ("parameters.total",), count, NO_SIZES),
    Fact("trained parameters", ("parameters.trainable", "parameters.total"), _trained, NO_SIZES),
    Fact("adapter", ("parameters.adapter_bytes",), lambda found: size(found) if found else "none", NO_SIZES),
    Fact("weights on each device", ("state.weights",), size, NO_STATE),
    Fact("gradients on each device", ("state.gradients",), size, NO_STATE),
    Fact("optimizer state on each device", ("state.optimizer",), size, NO_STATE),
    Fact("all three, without activations", ("state.total",), size, NO_STATE),
)


def consequences(found: Diff) -> list[Row]:
    """A row for each fact that differs."""
    return list(_facts(found))


def _facts(found: Diff) -> Iterator[Row]:
    differing = {item.name for item in found.derived}
    for fact in FACTS:
        if differing & set(fact.names):
            yield Row(fact.label, _fact(fact, found.facts[0]), _fact(fact, found.facts[1]))


def _fact(fact: Fact, side: Mapping[str, Any]) -> str:
    values = [side.get(name) for name in fact.names]
    return f"unknown ({fact.unknown})" if None in values else fact.written(*values)


def plain(change: Change) -> dict[str, Any]:
    """The change as JSON values; a key that is absent is null, and its source too unless its section is.

    `pointer` is its place in the second recipe, `from_pointer` in the first.
    """
    before, after = (None if side is ABSENT else side for side in (change.before, change.after))
    sources = {"from_source": change.before_source, "to_source": change.after_source}
    places = {"pointer": dotted(change.pointer), "from_pointer": dotted(change.before_pointer)}
    return {**places, "from": before, "to": after, **sources}
