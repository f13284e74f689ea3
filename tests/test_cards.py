"""Cards by name."""

from __future__ import annotations

import json

import pytest

from sysml_run import cards, resources


def test_every_name_says_its_memory() -> None:
    assert len(cards.names()) > 20
    for name in cards.names():
        (size,) = map(int, cards.MEMORY.findall(name))
        shown = cards.memory(name)
        assert shown is not None
        assert cards.known(name)
        assert 0.99 * size < shown / cards.GB < 1.09 * size or name in ("mi250-128gb",), name


def test_every_card_says_where_its_figures_are_from() -> None:
    rows = json.loads((resources.PACKAGE / "catalogue" / "hardware.json").read_text())["cards"]
    assert all(row["source"] for row in rows.values())
    for card in cards.catalogue().values():
        assert 1e13 < card.peak < 1e16, card.name
        assert 1e11 < card.bandwidth < 1e13, card.name


@pytest.mark.parametrize(("name", "known"), [("h100", True), ("H100-80GB", True), ("h100-81gb", False), ("x1", False)])
def test_known(name: str, known: bool) -> None:
    assert cards.known(name) == known


@pytest.mark.parametrize(("name", "new"), [(None, True), ("t4", False), ("V100-32gb", False), ("a10", True)])
def test_ampere(name: str | None, new: bool) -> None:
    assert cards.ampere(name) == new


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("h100-80gb", 81559 * 2**20),
        ("L4", 23034 * 2**20),
        ("a100", None),
        ("nobody-s-card-20gb", 20 * 10**9),
        ("nobody-s-card", None),
        (None, None),
    ],
)
def test_memory(name: str | None, memory: int | None) -> None:
    assert cards.memory(name) == memory
