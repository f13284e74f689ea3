"""A conversation as text, through a chat template, with the character spans of its answers.

Where an answer stands is found by rendering twice: everything before it with the generation prompt, and everything up
to it. A template whose longer rendering does not begin with the shorter one has no such spans and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sysml_run.errors import DataError

from .rowtypes import Message


@dataclass(frozen=True)
class Span:
    """An answer's characters with end token and what the template puts behind it; `content` is its own text."""

    start: int
    end: int
    content: str


@dataclass(frozen=True)
class Rendered:
    """`tail` is the character where the last message before the last answer ends: headers of the answer follow it."""

    text: str
    answers: tuple[Span, ...]
    tail: int


class RefusedError(Exception):
    """The template itself refused the conversation."""


class Renderer:
    """`template` is `tokenizer` (the tokenizer's own) or the text of a Jinja chat template."""

    def __init__(self, tokenizer: Any, template: str, train_on: str) -> None:
        self.tokenizer, self.train_on = tokenizer, train_on
        self.template = None if template == "tokenizer" else template
        if self.template is None and not tokenizer.chat_template:
            hint = "write a Jinja chat template in prompt.template, or name a tokenizer with one in model.tokenizer"
            raise DataError("prompt.template: the tokenizer has no chat template of its own", hint)
        if self.template is not None and "{" not in self.template:
            message = f"prompt.template {template!r} is neither tokenizer nor the text of a template"
            raise DataError(message, "use tokenizer, or write the Jinja chat template itself")

    def __call__(self, messages: list[Message], place: str) -> Rendered:
        """Render a conversation that ends in an answer.

        RefusedError where the template raises, DataError where it is not prefix-stable.
        """
        text = self.text(messages, False)
        last = len(messages) - 1
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        asked = turns if self.train_on == "assistant" else [last]
        spans = tuple(self.span(messages, i, text, place) for i in asked)
        return Rendered(text, spans, tail_of(text[: spans[-1].start], messages[:last]))

    def span(self, messages: list[Message], number: int, text: str, place: str) -> Span:
        prefix = self.text(messages[:number], True) if number else ""
        upto = text if number == len(messages) - 1 else self.text(messages[: number + 1], False)
        if not upto.startswith(prefix) or not text.startswith(upto):
            raise unstable(prefix, upto, text, place)
        return Span(len(prefix), len(upto), messages[number]["content"])

    def text(self, messages: list[Message], generation: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, add_generation_prompt=generation
                )
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error


def tail_of(prefix: str, before: list[Message]) -> int:
    """Where the content of the last message before the answer ends in the rendered prompt."""
    content = before[-1]["content"].strip() if before else ""
    found = prefix.rfind(content) if content else -1
    return found + len(content) if found >= 0 else len(prefix)


def unstable(prefix: str, upto: str, text: str, place: str) -> DataError:
    """What to tell the user about a template without answer spans."""
    shorter, longer = (prefix, upto) if not upto.startswith(prefix) else (upto, text)
    at = next(
        (i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), min(len(shorter), len(longer))
    )
    message = (
        "prompt.template is not prefix-stable: it renders the start of a conversation otherwise once more follows "
        f"(row {place}; {shorter[at : at + 30]!r} became {longer[at : at + 30]!r})"
    )
    return DataError(message, "use train_on: completion, or a template that renders each turn by itself")
