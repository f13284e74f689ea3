"""A conversation as text, through a chat template, with the character spans of its answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from .chat import Chat, RefusedError
from .rowtypes import Message
from .spans import Span, answers

__all__ = ["RefusedError", "Rendered", "Renderer", "Span"]


@dataclass(frozen=True)
class Rendered:
    """The text ends with the last answer, without white space that a template puts behind it.

    `tail` is the character where the last message before the last answer ends: headers of the answer follow it.

    `bos_added` tells that the template wrote no begin token and the tokenizer's own stands in front.
    """

    text: str
    answers: tuple[Span, ...]
    tail: int
    bos_added: bool = False


class Renderer:
    """`template` is `tokenizer` (the tokenizer's own), a name, or the text of a Jinja chat template. DataError."""

    def __init__(self, tokenizer: Any, template: str, train_on: str) -> None:
        self.chat, self.train_on = Chat(tokenizer, template), train_on

    def __call__(self, messages: list[Message], place: str) -> Rendered:
        """Render a conversation that ends in an answer; a first message of role `tools` holds the tools.

        RefusedError where the template raises, DataError where the answers' spans cannot be told.
        """
        turns, tools = self.chat.shaped(messages)
        if [turn["role"] for turn in turns] == ["assistant"]:
            return self.whole(str(turns[0]["content"]))
        apart = self.chat.turns(turns, tools)
        own = apart.text(len(turns)) if apart else self.chat.rendered(turns, tools)
        check_tools(own, turns, tools or [])
        front, last = self.chat.front(own), len(turns) - 1

        def render(some: list[Message], *, generation: bool = False) -> str:
            text = self.chat.rendered(some, tools, generation=generation)
            return self.chat.front(text) + text

        def start(count: int, *, generation: bool = False) -> str:
            if not apart or not count:
                return render(turns[:count], generation=generation)
            text = apart.text(count, generation=generation)
            return self.chat.front(text) + text

        every = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("train", True)]
        asked = every if self.train_on == "assistant" else [last]
        *others, final = answers(render, start, turns, asked, front + own, place)
        text = (front + own)[: final.start]
        tail, text = tail_of(text, turns[:last]), text + (front + own)[final.start :].rstrip()
        return Rendered(text, (*others, replace(final, end=len(text))), tail, bool(front))

    def whole(self, content: str) -> Rendered:
        """An answer to nothing: a text, which no template shapes, between begin and end token."""
        front = self.chat.begun(content)
        text, start = front + content + self.chat.end, len(front.rstrip())  # the space behind it is its first word's
        return Rendered(text, (Span(start, len(text), content),), start, bool(front))


def check_tools(text: str, turns: list[Message], tools: list[Any]) -> None:
    """RefusedError where the template leaves tools or calls unsaid, as those that know no tools do in silence."""
    called = [call["function"]["name"] for turn in turns for call in turn.get("tool_calls", ())]
    if not called and not tools:
        return
    names = Counter([*called, *(tool["function"]["name"] for tool in tools)])
    unsaid = [name for name, count in names.items() if text.count(name) < count]
    if unsaid:
        raise RefusedError(f"the template does not write out tools and their calls ({unsaid[0]}); use one that does")


def tail_of(prefix: str, before: list[Message]) -> int:
    """Where the content of the last message before the answer ends in the rendered prompt."""
    content = str(before[-1].get("content", "")).strip() if before else ""
    found = prefix.rfind(content) if content else -1
    return found + len(content) if found >= 0 else len(prefix)
