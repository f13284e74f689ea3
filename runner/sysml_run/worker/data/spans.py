"""Where the answers stand in a rendered conversation.

An answer is what follows the prompt that inference would render before it. Rendering both and comparing finds it, as
long as the longer text begins with the shorter one. Where a later turn changes how an earlier one is rendered (Mistral
puts the system message into the last user turn), the answer is found by itself, and then where its content stands in
the whole: a mark in front of each content tells, and counts only if the text but for the marks is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sysml_run.errors import DataError

from .rowtypes import Message

Render = Callable[..., str]  # (messages, *, generation=False) -> text
Start = Callable[..., str]  # (count, *, generation=False) -> text of the first `count` messages
MARKS = "\ue000\ue001\ue002\uf8ff"  # private use: no font and no template gives them a meaning


@dataclass(frozen=True)
class Span:
    """An answer's characters with end token and what the template puts behind it; `content` is its own text."""

    start: int
    end: int
    content: str


def content(message: Message) -> str:
    """The answer's own words, its tool calls included."""
    calls = message.get("tool_calls")
    return str(message.get("content", "")) + (json.dumps(calls, ensure_ascii=False) if calls else "")


def answers(
    render: Render, start: Start, messages: list[Message], turns: Sequence[int], text: str, place: str
) -> tuple[Span, ...]:
    """The spans of the answers at `turns`; `text` is the whole conversation. DataError where they cannot be told."""
    try:
        return tuple(by_prefix(start, messages, turn, text) for turn in turns)
    except Unstable as unstable:
        found = by_mark(render, messages, turns, text)
        if found is None:
            raise unstable.told(place) from None
        return found


class Unstable(Exception):  # noqa: N818 - never leaves this module
    """`longer` should begin with `shorter`."""

    def __init__(self, shorter: str, longer: str) -> None:
        self.shorter, self.longer = shorter, longer

    def told(self, place: str) -> DataError:
        pairs = enumerate(zip(self.shorter, self.longer, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(self.shorter), len(self.longer)))
        message = (
            "prompt.template is not prefix-stable: it renders the start of a conversation otherwise once more follows "
            f"(row {place}; {self.shorter[at : at + 30]!r} became {self.longer[at : at + 30]!r})"
        )
        return DataError(message, "use train_on: completion, or a template that renders each turn by itself")


def by_prefix(start: Start, messages: list[Message], turn: int, text: str) -> Span:
    """The span between the prompt and the conversation up to the answer. Raises Unstable."""
    prompt = start(turn, generation=True)
    upto = text if turn == len(messages) - 1 else start(turn + 1)
    for shorter, longer in ((prompt, upto), (upto, text)):
        if not longer.startswith(shorter):
            raise Unstable(shorter, longer)
    return Span(len(prompt), len(upto), content(messages[turn]))


def by_mark(render: Render, messages: list[Message], turns: Sequence[int], text: str) -> tuple[Span, ...] | None:
    """The spans of answers that are the same text in the whole as at the end of their own conversation."""
    everything = json.dumps(messages, ensure_ascii=False) + text
    mark = next((mark for mark in MARKS if mark not in everything), None)
    if mark is None:
        return None
    places = offsets(render([marked(m, mark) if n in turns else m for n, m in enumerate(messages)]), mark, text)
    if places is None or len(places) != len(turns):
        return None
    found = [located(render, messages, turn, mark, at, text) for turn, at in zip(turns, places, strict=True)]
    spans = tuple(span for span in found if span is not None)
    apart = all(one.end <= other.start for one, other in pairwise(spans))
    return spans if len(spans) == len(turns) and apart else None


def located(render: Render, messages: list[Message], turn: int, mark: str, at: int, text: str) -> Span | None:
    """The answer of one turn whose content stands at `at` in the whole text."""
    upto, prompt = render(messages[: turn + 1]), render(messages[:turn], generation=True)
    alone = offsets(render([*messages[:turn], marked(messages[turn], mark)]), mark, upto)
    if alone is None or len(alone) != 1 or not upto.startswith(prompt) or alone[0] < len(prompt):
        return None
    start = at - (alone[0] - len(prompt))
    answer = upto[len(prompt) :]
    same = start >= 0 and text[start : start + len(answer)] == answer
    return Span(start, start + len(answer), content(messages[turn])) if same else None


def marked(message: Message, mark: str) -> Message:
    """The answer with a mark in front of its first word, or of its first call's name."""
    text, calls = message.get("content", ""), message.get("tool_calls")
    if text.strip() or not calls:
        lead = len(text) - len(text.lstrip()) if text.strip() else 0
        return {**message, "content": text[:lead] + mark + text[lead:]}
    function: dict[str, Any] = {**calls[0]["function"], "name": mark + calls[0]["function"]["name"]}
    return {**message, "tool_calls": [{**calls[0], "function": function}, *calls[1:]]}


def offsets(text: str, mark: str, plain: str) -> list[int] | None:
    """Where the marks stand in `plain`; None where the text without them is another."""
    pieces = text.split(mark)
    if "".join(pieces) != plain:
        return None
    return [sum(map(len, pieces[: n + 1])) for n in range(len(pieces) - 1)]
