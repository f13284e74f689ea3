"""The keys that each trainer knows, and why sysml-run has no key for one: read from the files in `known`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from sysml_run.wording import closest

FILES: Mapping[str, tuple[str, ...]] = {
    "axolotl": ("axolotl",),
    "llama-factory": ("llama-factory", "transformers"),
    "trl": ("trl", "transformers"),
    "torchtune": ("torchtune",),
}

MARK = "! "  # before the name of a key that changes what is learnt


@dataclass(frozen=True)
class Names:
    """`reasons` are by name or by pattern, the names first; a name below a section is dotted, without item numbers.

    `marked` names change what is learnt.
    """

    known: frozenset[str]
    reasons: Mapping[str, str]
    marked: frozenset[str] = frozenset()

    def why(self, name: str) -> str | None:
        """The reason for the name itself, else for the nearest section that holds it."""
        for above in _upwards(name):
            if above in self.reasons:
                return self.reasons[above]
            for pattern, reason in self.reasons.items():
                if "*" in pattern and fnmatchcase(above, pattern):
                    return reason
        return None

    def mark(self, name: str) -> str | None:
        """The marked name that this one is, or is below."""
        return next((above for above in _upwards(name) if above in self.marked), None)

    def unknown(self, name: str) -> str | None:
        """The part of a dotted name that the trainer does not know; what is below a free-form section is not judged."""
        path = [*_upwards(name)][::-1]
        for above, here in zip(["", *path], path, strict=False):
            told = any(one.startswith(f"{above}.") for one in self.known) if above else True
            if not told:
                return None
            if here not in self.known:
                return here
        return None

    def nearest(self, name: str) -> str | None:
        """The known name of the same section that is nearest in spelling."""
        section, _, last = name.rpartition(".")
        return closest(last, [one.rpartition(".")[2] for one in self.known if one.rpartition(".")[0] == section])


@cache
def load(tool: str) -> Names:
    """The names of one trainer, a row of FILES."""
    written = [line for name in FILES[tool] for line in _lines(name)]
    lines = [line.removeprefix(MARK) for line in written]
    marked = frozenset(line.removeprefix(MARK).partition(": ")[0] for line in written if line.startswith(MARK))
    reasons = {name: why for name, colon, why in (line.partition(": ") for line in lines) if colon}
    known = frozenset(line.partition(": ")[0] for line in lines if "*" not in line.partition(": ")[0])
    return Names(known, reasons, marked)


def _lines(name: str) -> list[str]:
    text = (Path(__file__).parent / "known" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _upwards(name: str) -> Iterator[str]:
    """a.b.c, a.b, a."""
    while name:
        yield name
        name = name.rpartition(".")[0]
