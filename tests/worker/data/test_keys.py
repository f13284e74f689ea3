"""What rows are compared and grouped by."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run.recipe import Split
from sysml_run.worker.data.keys import Keys, Text
from sysml_run.worker.data.masking import digest, mask


def split(group_by: str | None) -> Split:
    return Split(0.2, 0.0, stratify_by=None, group_by=group_by, dedupe="none", balance=None)


def talk(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def digests(group_by: str | None, *texts: str) -> dict[str, bytes]:
    return Keys(split(group_by)).digests(Text.of(talk(*texts)), {"host": "a"}, dict, "a:0")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_the_two_parts_are_the_whole(texts: list[str]) -> None:
    line = json.dumps(talk(*texts), ensure_ascii=False)
    text = Text.of(talk(*texts))
    assert text.asked + text.answer == line
    assert (text.asked == "") == (len(texts) == 1)
    found = digests(None, *texts)
    assert found["exact"] == found["group"] == digest(line)
    assert found["masked"] == digest(mask(line))


@pytest.mark.parametrize("texts", [("port 22?", "high"), ("a", "b", "port 22?", "high")])
def test_one_question_is_one_group_however_it_is_answered(texts: tuple[str, ...]) -> None:
    """Numbers and hex aside; the rows themselves differ."""
    *before, question, answer = texts
    one, other = (digests("masked_text", *before, *rest) for rest in ((question, answer), ("port 80?", "low")))
    assert one["group"] == other["group"]
    assert one["masked"] != other["masked"]
    assert one["group"] != digests("masked_text", *before, "door 22?", answer)["group"]
    assert digests("host", *texts)["group"] == digest("a")


def test_a_text_that_is_no_answer_is_grouped_by_itself() -> None:
    first, again, other = (digests("masked_text", text) for text in ("row 1", "row 2", "line 2"))
    assert first["group"] == again["group"] == first["masked"]
    assert other["group"] != first["group"]
