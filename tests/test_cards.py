"""Cards by name."""

from __future__ import annotations

import pytest

from sysml_run import cards


def test_every_name_says_its_memory() -> None:
    assert len(cards.NAMES) == len(set(cards.NAMES)) > 20
    assert all(cards.memory(name) and cards.known(name) for name in cards.NAMES)


@pytest.mark.parametrize(("name", "known"), [("h100", True), ("H100-80GB", True), ("h100-81gb", False), ("x1", False)])
def test_known(name: str, known: bool) -> None:
    assert cards.known(name) == known


@pytest.mark.parametrize(("name", "new"), [(None, True), ("t4", False), ("V100-32gb", False), ("a10", True)])
def test_ampere(name: str | None, new: bool) -> None:
    assert cards.ampere(name) == new
