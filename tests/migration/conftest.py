"""Configurations written on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document
from sysml_run.document import dotted
from sysml_run.migration import convert
from sysml_run.migration.ledger import Ledger


class Settled:
    """The ledger of a configuration, with dotted names."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.values = {dotted(place): entry.value for place, entry in ledger.entries.items()}
        self.origins = {dotted(place): entry.origin for place, entry in ledger.entries.items()}
        self.carried = {dotted(leaf): dotted(place) for leaf, place in ledger.carried.items()}
        self.listed = {dotted(leaf): why for leaf, why in ledger.listed.items()}


@pytest.fixture
def settle(tmp_path: Path) -> Callable[..., Settled]:
    """`settle(tool, text)`: the configuration stands in tmp_path, and so will its recipe."""

    def made(tool: str, text: str, target: Path | None = None) -> Settled:
        source = document.parse(text, str(tmp_path / "config.yml"))
        ledger, problems = convert.settle(source, tool, target or tmp_path / "recipe.yaml", named=True)
        assert not problems
        return Settled(ledger)

    return made


Settle = Callable[..., Any]
