"""A chat template compiled once: the text it makes of a conversation is that of `apply_chat_template`."""

from __future__ import annotations

import json
from typing import Any

from sysml_run.errors import DataError
from sysml_run.templates import NAMES

from . import mistral
from .begin import begins, gap
from .named import load
from .rowtypes import Message
from .turnwise import RAISED, Turns, turnwise

TOOLS = "tools"
PROBE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


class RefusedError(Exception):
    """The template itself refused the conversation."""


class Chat:
    """`template` is `tokenizer`, a name, or the text of a Jinja chat template; `name` is what a record calls it."""

    def __init__(self, tokenizer: Any, template: str) -> None:
        self.own = template == "tokenizer"
        self.name, self.version, self.text = find(tokenizer, template)
        self.plain = compiled(self.text)
        self.with_tools = compiled(tokenizer.get_chat_template(tools=[{}])) if self.own else self.plain
        self.words = dict(tokenizer.special_tokens_map)
        self.turnwise = turnwise(self.text, self.plain.environment, self.words)
        self.end = str(tokenizer.eos_token or "")
        self.begin = str(tokenizer.bos_token) if begins(tokenizer) else ""
        self.gap = gap(tokenizer) if self.begin else ""

    def shaped(self, messages: list[Message]) -> tuple[list[Message], list[Any] | None]:
        """The messages as templates take them, and the tools that stood in front of them. RefusedError."""
        from transformers.utils.chat_template_utils import _alias_reasoning_fields

        tools = messages[0][TOOLS] if messages[0]["role"] == TOOLS else None
        found = _alias_reasoning_fields([cleaned(message) for message in messages if message["role"] != TOOLS])
        return (mistral.shaped(found, self.version) if self.version else found), tools or None

    def rendered(self, messages: list[Message], tools: list[Any] | None, *, generation: bool = False) -> str:
        """The template's own text. RefusedError."""
        with Refusing():
            template = self.with_tools if tools else self.plain
            return str(template.render(self.given(messages, tools, generation=generation)))

    def turns(self, messages: list[Message], tools: list[Any] | None) -> Turns | None:
        """The same cut where each message begins; None where that cannot be told. RefusedError."""
        if self.turnwise is None or tools:
            return None
        with Refusing():
            return self.turnwise(self.given(messages, tools))

    def given(self, messages: list[Message], tools: list[Any] | None, *, generation: bool = False) -> dict[str, Any]:
        """What a template sees."""
        own = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": generation}
        return {**self.words, **own}

    def front(self, text: str) -> str:
        """What stands before the template's text: the tokenizer's begin token, where the template writes none.

        The tokenizer's own template is the model's word on it and is left alone.
        """
        return "" if self.own else self.begun(text)

    def begun(self, text: str) -> str:
        """The begin token that the tokenizer puts in front of a text, and what its first word needs behind that."""
        if not self.begin or text.startswith(self.begin):
            return ""
        return self.begin if self.gap and text.startswith(self.gap) else self.begin + self.gap

    def published(self) -> str:
        """The template as whoever uses the model needs it: with the begin token that training had in front."""
        try:
            front = self.front(self.rendered(PROBE, None))
        except RefusedError:
            front = "" if "bos_token" in self.text else self.front("")
        return f"{{{{ {front!r} }}}}{{##}}\n{self.text}" if front else self.text


class Refusing:
    """What a template raises as RefusedError; of a row most of what is done, so a class, which takes less time."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            from jinja2 import TemplateError

            if isinstance(error, (TemplateError, *RAISED)):
                raise RefusedError(f"{type(error).__name__}: {error}") from error


def find(tokenizer: Any, template: str) -> tuple[str, int, str]:
    """Name, version (0: it has none) and text of a template; DataError where there is no such template."""
    if template in NAMES:
        found = load(tokenizer, template)
        return found.name, found.version, found.text
    if template == "tokenizer":
        if not tokenizer.chat_template:
            hint = "name a template in prompt.template, or a tokenizer that has one in model.tokenizer"
            raise DataError("prompt.template: the tokenizer has no chat template of its own", hint)
        return template, 0, str(tokenizer.get_chat_template())
    if "{" not in template:
        message = f"prompt.template {template!r} is neither a name nor the text of a template"
        raise DataError(message, f"use tokenizer, {', '.join(NAMES)}, or write the Jinja chat template itself")
    return "inline", 0, template


def compiled(text: str) -> Any:
    """The template in the sandbox that `transformers` renders chat templates in; DataError where it does not parse."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return _compile_jinja_template(text)
    except TemplateError as error:
        raise DataError(f"prompt.template: {error}", "it is a Jinja chat template") from error


def cleaned(message: Message) -> Message:
    """The message without keys that are null, its calls' arguments as objects, as templates expect them."""
    found = {key: value for key, value in message.items() if value is not None}
    if found.get("tool_calls"):
        found["tool_calls"] = [called(call) for call in found["tool_calls"]]
    return found


def called(call: Any) -> Any:
    """A tool call with arguments as an object where they are JSON text. RefusedError for what is no call."""
    try:
        function = call["function"]
        arguments = function["arguments"]
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
        return {**call, "function": {**function, "arguments": parsed}}
    except (TypeError, LookupError, ValueError) as error:
        raise RefusedError(f"a tool call needs function.name and arguments that are JSON: {call!r:.80}") from error
