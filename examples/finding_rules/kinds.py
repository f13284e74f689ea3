"""The form of a category's table, and what categories share: severity mix, risk scores, names, host facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What a value is drawn from: a tuple is one of its items, a range one of its numbers, a string a template over the
# fields drawn so far; lists and dicts are built item by item, anything else is itself.
Spec = Any

MIX = {"info": 45, "low": 20, "medium": 12, "high": 15, "critical": 8}  # percent, near that of real archives
# The risk score of a severity, by the column of the grid that the finding stands in.
SCORES = {
    "info": (10, 12, 15, 15),
    "low": (20, 25, 28, 30),
    "medium": (40, 50, 55, 65),
    "high": (70, 75, 80, 88),
    "critical": (90, 92, 95, 98),
}
LETTERS = {name[0]: name for name in MIX}


@dataclass(frozen=True)
class Choice:
    """One class of a deciding feature: why it matters, how texts say it, and the field values that show it."""

    reason: str
    said: tuple[str, ...]
    shows: tuple[Mapping[str, Spec], ...] = ({},)


@dataclass(frozen=True)
class Kind:
    """A category: two features decide, each grid row (a class of the first) has a letter per class of the second.

    `draw` is filled in before the features are, `then` after them, in order; only fields named in `metadata` are shown
    there. Texts are templates over all fields, with `{one}` and `{two}` for a phrase about each feature. `aside` holds
    fields that decide nothing, one of which each finding carries. `rows` is the category's share of 600.
    """

    category: str
    rows: int
    id: str
    tags: tuple[str, ...]
    one: tuple[Choice, ...]
    two: tuple[Choice, ...]
    grid: tuple[str, ...]
    titles: tuple[str, ...]
    descriptions: tuple[str, ...]
    metadata: tuple[str, ...]
    draw: Mapping[str, Spec]
    then: Mapping[str, Spec]
    aside: tuple[Mapping[str, Spec], ...]

    def cells(self, severity: str) -> list[tuple[int, int]]:
        """The (row, column) of each grid cell that means `severity`."""
        marks = [(row, column, mark) for row, line in enumerate(self.grid) for column, mark in enumerate(line)]
        return [(row, column) for row, column, mark in marks if LETTERS[mark] == severity]


def each(field: str, *values: Spec) -> tuple[dict[str, Spec], ...]:
    """One way to show a choice for each value of one field."""
    return tuple({field: value} for value in values)


HOSTS = ("web-01", "web-02", "db-01", "build-03", "mail-01", "edge-02", "k8s-node-3", "files-01")
USERS = ("alice", "bogdan", "chen", "dina", "emeka", "farah", "goran", "hana")
KERNEL = "{major}.{minor}-generic"
VERSIONS: dict[str, Spec] = {"major": (5, 6), "minor": range(1, 19)}  # hidden fields that KERNEL is made of
EXECUTION = "MITRE ATT&CK: TA0002"
HARDENING = "CIS: least privilege"

DISTRO: tuple[dict[str, Spec], ...] = (
    {"distro": ("Debian", "Fedora", "Alpine", "Arch")},
    {"distro_version": ("12", "39", "3.20", "rolling")},
    {"package_manager": ("apt", "dnf", "apk", "pacman")},
)
ON_HOST: tuple[dict[str, Spec], ...] = (*DISTRO, {"kernel": KERNEL}, {"kb_refs": [HARDENING]})
