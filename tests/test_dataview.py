"""Rows as text: what counts in the loss is seen with colour and without, and nothing moves the terminal."""

from typing import Any

from sysml_run import dataview

from .test_datasummary import FULL

ROW: dict[str, Any] = {
    "id": "a.jsonl:0",
    "tokens": 5,
    "loss_tokens": 2,
    "pieces": [{"text": "<|user|>\nwhat\x1b[2J?\t", "trained": False}, {"text": "high<|end|>", "trained": True}],
}
EACH = [
    {"id": 4, "text": "what", "trained": False},
    {"id": 12, "text": "\n", "trained": False},
    {"id": 31, "text": "high", "trained": True},
]


def shown(row: dict[str, Any], *, colour: bool = False) -> str:
    return dataview.text(FULL, [row], colour=colour).partition("\n\n")[2]


def test_the_loss_is_marked_in_plain_text() -> None:
    assert shown(ROW) == (
        "a.jsonl:0: 5 tokens, 2 of them in the loss “like this”\n<|user|>\nwhat?[2J? “high<|end|>”\n"
    ).replace("“", "\N{LEFT DOUBLE ANGLE BRACKET}").replace("”", "\N{RIGHT DOUBLE ANGLE BRACKET}")


def test_the_loss_is_green_on_a_terminal() -> None:
    text = shown(ROW, colour=True)
    assert "\x1b[32m\N{LEFT DOUBLE ANGLE BRACKET}high<|end|>\N{RIGHT DOUBLE ANGLE BRACKET}\x1b[0m" in text
    assert text.count("\x1b[32m") == 1
    assert "\x1b[2J" not in text


def test_token_by_token() -> None:
    lines = shown(ROW | {"each": EACH}).splitlines()[1:]
    assert [line.split() for line in lines] == [
        ["0", "4", "'what'"],
        ["1", "12", "'\\n'"],
        ["2", "31", "\N{LEFT DOUBLE ANGLE BRACKET}\N{RIGHT DOUBLE ANGLE BRACKET}", "'high'"],
    ]
    assert shown(ROW | {"each": EACH}, colour=True).count("\x1b[32m") == 1


def test_the_report_comes_first() -> None:
    assert dataview.text(FULL, [], colour=False).startswith("prepare: 12451 rows read, 12432 kept")
