"""The smallest changes by which a training step fits its device, those that cost least speed first."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import rules, validate
from .document import Document
from .estimate.verdict import Verdict, verdict
from .machine import Machine
from .plan import Settled
from .position import Position, value_at
from .recipe import Recipe
from .resolve import Resolved, resolve
from .savings import WAYS, Saving, adapters

NOWHERE = Path("/dev/null")  # holds nothing that a path could mean
# What the plan chose by other keys of the recipe, on these accelerators: it would choose anew where one changes.
CHOSEN_BY: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hardware.zero_stage": (("cpu", "gpu"), ("lora", "optimizer.name", "quantization.load")),
    "model.attn_implementation": (("cpu",), ("prompt.sequence_len",)),
}
KEPT = "stays as it was chosen before these changes"


@dataclass(frozen=True)
class Changed:
    """A key of the recipe; `costs` says what the change costs, "" where the key above it does."""

    pointer: str
    before: Any
    after: Any
    costs: str


@dataclass(frozen=True)
class Fit:
    """`limit` bytes are to hold the upper end of the band; without `changes` they do, or nothing helps."""

    limit: int
    before: Verdict
    after: Verdict
    changes: tuple[Changed, ...]

    @property
    def enough(self) -> bool:
        """Else `after` is the least that there is."""
        return self.after.ends[1] <= self.limit


@dataclass(frozen=True)
class Tried:
    """A recipe with what was `saved` by the first `levels[n]` steps of the n-th way, of which the last one counts."""

    levels: tuple[int, ...]
    resolved: Resolved
    saved: tuple[Saving, ...]
    verdict: Verdict | None


def find(
    settled: Settled | Resolved, machine: Machine, *, failed: bool = False, batch: tuple[int, int] | None = None
) -> Fit | None:
    """For a settled recipe; None where its memory cannot be estimated, or the device's is not known.

    A run that `failed` for lack of memory takes more than it is estimated to: the changes are then to take it below
    the estimate, which is that of the `batch` of rows and tokens at which it failed where this is known.
    """
    resolved = Resolved(settled.recipe, settled.values, settled.sources)
    start = Tried((0,) * len(WAYS), resolved, (), verdict(settled.recipe, machine))
    limit = _limit(settled.recipe, start.verdict, machine, batch) if failed else _available(start.verdict)
    if start.verdict is None or limit is None:
        return None
    search = _Search(machine, limit)
    end = search.least(start)
    for last in adapters(settled.recipe) if not search.fits(end) else ():
        other = search.least(search.after(start, last))
        end = other if _total(other) < _total(end) else end
    assert end.verdict is not None
    return Fit(limit, start.verdict, end.verdict, tuple(_changes(settled, end)))


def listed(settled: Settled | Resolved) -> tuple[Changed, ...]:
    """The first step of each way, cheapest first, where nothing can be estimated."""
    firsts = [saving for way in WAYS for saving in way(settled.recipe)[:1]]
    return tuple(change for saving in firsts for change in _changed(settled.values, saving))


def _available(found: Verdict | None) -> int | None:
    return found.available if found else None


def _limit(recipe: Recipe, start: Verdict | None, machine: Machine, batch: tuple[int, int] | None) -> int | None:
    if start is None:
        return None
    most = start.estimate.total
    if batch is not None:
        training = replace(recipe.training, micro_batch_size=batch[0])
        seen = verdict(
            replace(recipe, training=training, prompt=replace(recipe.prompt, sequence_len=batch[1])), machine
        )
        most = seen.estimate.total if seen else most
    return min(most, start.available or most)


@dataclass(frozen=True)
class _Search:
    """For changes after which the upper end of the band is at most `limit`."""

    machine: Machine
    limit: int

    def least(self, start: Tried) -> Tried:
        """Way after way, each as far as it makes a difference, until the step fits; then without what is not needed."""
        found = start
        for at, way in enumerate(WAYS):
            for level in range(1, len(way(found.resolved.recipe)) + 1):
                if self.fits(found):
                    break
                tried = self.tried(start, _put(found.levels, at, level))
                found = tried if _total(tried) < _total(found) else found
        return self.lowered(start, found) if self.fits(found) else found

    def lowered(self, start: Tried, found: Tried) -> Tried:
        """The costliest way is taken back first."""
        for at in reversed(range(len(WAYS))):
            lower = (self.tried(start, _put(found.levels, at, level)) for level in range(found.levels[at]))
            found = next(filter(self.fits, lower), found)
        return found

    def fits(self, found: Tried) -> bool:
        return found.verdict is not None and found.verdict.ends[1] <= self.limit

    def tried(self, start: Tried, levels: tuple[int, ...]) -> Tried:
        """Each way sees what those before it have set."""
        now = start
        for way, level in zip(WAYS, levels, strict=True):
            steps = way(now.resolved.recipe)
            if level and steps:
                now = self.after(now, steps[min(level, len(steps)) - 1])
        return replace(now, levels=levels)

    def after(self, now: Tried, saving: Saving) -> Tried:
        """There is no verdict on a recipe that is refused, nor on what comes of it."""
        changed = _with(now.resolved.values, saving.sets) if now.verdict else None
        if changed is None:
            return replace(now, verdict=None)
        return Tried(now.levels, changed, (*now.saved, saving), verdict(changed.recipe, self.machine))


def _put(levels: tuple[int, ...], at: int, level: int) -> tuple[int, ...]:
    return (*levels[:at], level, *levels[at + 1 :])


def _total(found: Tried) -> float:
    return found.verdict.estimate.total if found.verdict else float("inf")


def _with(values: Mapping[str, Any], sets: Mapping[str, Any]) -> Resolved | None:
    """The recipe with these keys set, None where validate or a rule refuses it."""
    changed = copy.deepcopy(dict(values))
    for name, value in sets.items():
        *sections, key = name.split(".")
        place = changed
        for section in sections:
            place = place[section]
        place[key] = value
    asked = copy.deepcopy(changed)
    if asked["training"]["effective_batch_size"] is not None:
        asked["training"]["gradient_accumulation_steps"] = None  # follows from it, and is not written beside it
    document = _document(asked)
    problems = list(validate.check(document))
    if not any(problem.severity == "error" for problem in problems):
        resolved = resolve(_document(changed))
        problems = rules.check(resolve(document).recipe, document, running=False)
        if not any(problem.severity == "error" for problem in problems):
            return resolved
    return None


def _document(values: Any) -> Document:
    return Document("", "", values, {}, {(): Position("")}, NOWHERE)


def _changes(settled: Settled | Resolved, found: Tried) -> Iterator[Changed]:
    changes = {change.pointer: change for saving in found.saved for change in _changed(settled.values, saving)}
    for name, (accelerators, causes) in CHOSEN_BY.items():
        chosen = settled.sources.get(name, "").startswith("derived")
        anew = settled.recipe.hardware.accelerator in accelerators and any(cause in changes for cause in causes)
        if chosen and anew and name not in changes:
            value = value_at(settled.values, name)
            changes[name] = Changed(name, value, value, KEPT)
    yield from changes.values()


def _changed(values: Mapping[str, Any], saving: Saving) -> Iterator[Changed]:
    costs = saving.costs
    for name, after in saving.sets.items():
        yield Changed(name, value_at(values, name), after, costs)
        costs = ""


def assignments(changes: Sequence[Changed]) -> list[str]:
    """What `--set` takes, each as it is read back."""
    return [f"{change.pointer}={_yaml(change.after)}" for change in changes]


def _yaml(value: Any) -> str:
    """`true`, `null`, `3`, a word, or `{r: 16, alpha: 32}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
