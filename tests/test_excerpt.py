"""The lines that differ between two texts, short enough to be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run import excerpt


def test_lines_that_are_equal_are_left_out() -> None:
    assert excerpt.lines("a\nb\nc", "a\nB\nc\nd", 40) == ["- b", "+ B", "+ d"]
    assert excerpt.lines("a\nb", "b", 40) == ["- a"]
    assert excerpt.lines("a", "a", 40) == []


def test_of_a_long_line_the_part_that_differs() -> None:
    long = "word " * 100
    old, new = excerpt.lines(f"{long}before {long}", f"{long}after {long}", 60)
    assert old.startswith("- …")
    assert "word before word" in old
    assert "word after word" in new
    assert len(old) == len(new) == 60
    assert excerpt.lines("x" * 99, "y" * 99, 20) == ["- " + "x" * 17 + "…", "+ " + "y" * 17 + "…"]
    assert excerpt.lines("x" * 99, "x" * 99 + "y", 40) == ["- …" + "x" * 24, "+ …" + "x" * 24 + "y"]


def test_many_lines_are_counted() -> None:
    found = excerpt.lines("", "\n".join("abcdefghijklmnopq"), 40)
    assert len(found) == excerpt.MOST + 1
    assert found[-1] == "… 6 more"


@pytest.mark.parametrize(("text", "wanted"), [("", ""), ("abc", "abc"), ("abcd", "ab…")])
def test_clipped(text: str, wanted: str) -> None:
    assert excerpt.clipped(text, 3) == wanted


@given(st.text("ab\n", max_size=200), st.text("ab\n", max_size=200), st.integers(40, 120))
def test_nothing_is_wider_than_asked_for(old: str, new: str, width: int) -> None:
    found = excerpt.lines(old, new, width)
    assert all(len(line) <= width for line in found)
    assert bool(found) == (old != new)
