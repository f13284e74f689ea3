"""Redaction: every text of a row and nothing else, before anything sees it."""

from typing import Any

import pytest

from sysml_run import redaction
from sysml_run.errors import DataError
from sysml_run.recipe import Redaction
from sysml_run.worker.data.conversations import Conversations, Left
from sysml_run.worker.data.redact import Redactor

from .reading import dataset

IP, MAIL = r"\b\d{1,3}(\.\d{1,3}){3}\b", r"\b[\w.]+@[\w.]+\b"
ROW: dict[str, Any] = {
    "title": "10.0.0.1 asks 10.0.0.2",
    "10.0.0.3": {"mail": ["a@b.c", 10, None, {"deep": "x 10.0.0.4"}]},
    "port": 22,
}


def redactor(*pairs: tuple[str, str]) -> Redactor:
    return Redactor([Redaction(pattern, replace) for pattern, replace in pairs], 3)


def test_every_text_and_no_key() -> None:
    made = redactor((IP, "<ip>"), (MAIL, r"\1"), ("absent", ""))
    assert made(ROW) == {
        "title": "<ip> asks <ip>",
        "10.0.0.3": {"mail": [r"\1", 10, None, {"deep": "x <ip>"}]},
        "port": 22,
    }
    counts = [{"pattern": IP, "replaced": 3}, {"pattern": MAIL, "replaced": 1}, {"pattern": "absent", "replaced": 0}]
    assert made.facts(3) == [{"dataset": 3, **each} for each in counts]


def test_patterns_see_what_earlier_ones_wrote() -> None:
    assert redactor(("a", "b"), ("b", "c"))("ab") == "cc"


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "not a regular expression"), ("x*", "empty text"), ("a{99999999999}", "not a regular")]
)
def test_patterns_that_will_not_do(pattern: str, words: str) -> None:
    assert words in str(redaction.problem(pattern))
    with pytest.raises(DataError, match=rf"datasets\.3\.redact\.0\.pattern: .*{words}"):
        redactor((pattern, ""))


def test_a_pattern_that_will_do() -> None:
    assert redaction.problem(IP) is None


def test_where_route_and_templates_see_the_redacted_row() -> None:
    keys: dict[str, Any] = {"where": "'<ip>' in title", "route": {"when": "title | mentions('asks')"}}
    texts = {"prompt": "{{ title }}", "completion": "{{ row | tojson }}"}
    redact = [{"pattern": IP, "replace": "<ip>"}]
    made = Conversations(dataset("x", "rows", map=texts, redact=redact, **keys), 0)
    row = made.redacted(ROW)
    assert made.keeps(row, "x:0")
    assert made.route(row, "x:0")
    found = made.read(row, "x:0")
    assert not isinstance(found, Left)
    assert "10.0.0.1" not in str(found)
    plain = Conversations(dataset("x", "text"), 0)
    assert plain.redacted(ROW) is ROW
    assert plain.route(ROW, "x:0") is None
