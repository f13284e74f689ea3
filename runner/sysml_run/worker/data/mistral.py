"""The Mistral format's versions, told by a tokenizer's special tokens, and what it asks of tool calls and results."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from sysml_run.errors import DataError

from .begin import gap
from .rowtypes import Message

LATER = ("[ARGS]", "[CALL_ID]", "[THINK]")  # versions 11 and up
OWN = (("[SYSTEM_PROMPT]", 7), ("[AVAILABLE_TOOLS]", 3))
NEEDS = {
    1: ("<s>", "</s>"),
    3: ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    7: ("<s>", "</s>", "[INST]", "[/INST]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[TOOL_CONTENT]"),
}
ID = re.compile(r"[a-zA-Z0-9]{9}")


def version(tokenizer: Any) -> int:
    """1 (Mixtral 8x7B, Mistral 7B v0.1, v0.2), 3 (Mistral 7B v0.3, Mixtral 8x22B, Nemo) or 7 (Large 2411, Small 2501).

    DataError for a tokenizer of a later version. Version 2 differs from 3 in tools alone; no published model needs it.
    """
    words = tokenizer.get_vocab()
    later = [word for word in LATER if word in words]
    if later:
        message = f"prompt.template mistral: the tokenizer has {', '.join(later)}, of a later version than 7"
        raise DataError(message, "write template: tokenizer")
    return next((number for word, number in OWN if word in words), 1)


def header(tokenizer: Any) -> str:
    """The lines that go in front of mistral.jinja."""
    return f"{{%- set version = {version(tokenizer)} -%}}\n{{%- set gap = {gap(tokenizer)!r} -%}}\n"


def shaped(messages: list[Message], number: int) -> list[Message]:
    """Ids of tool calls as Mistral takes them, and in version 3 results that are JSON as the values they spell."""
    if not any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        return messages
    waiting: list[str] = []
    found = []
    for at, message in enumerate(messages):
        calls = message.get("tool_calls")
        if calls:
            named = [{**call, "id": call_id(call.get("id"), f"{at}.{n}")} for n, call in enumerate(calls)]
            waiting = [call["id"] for call in named]
            message = {**message, "tool_calls": named}
        elif message["role"] == "tool":
            message = {**message, "tool_call_id": result_id(message.get("tool_call_id"), waiting)}
            message = message if number == 7 else {**message, "content": value(message["content"])}
        found.append(message)
    return found


def call_id(given: str | None, place: str) -> str:
    """Nine letters or digits; another id, or the place of a call without one, gives the first nine of its digest."""
    return given if given and ID.fullmatch(given) else hashlib.sha256((given or place).encode()).hexdigest()[:9]


def result_id(given: str | None, waiting: list[str]) -> str:
    """The id of the call a result belongs to: the one it names, else the next that has no result yet."""
    if given is None:
        return waiting.pop(0) if waiting else call_id(None, "")
    wanted = call_id(given, "")
    if wanted in waiting:
        waiting.remove(wanted)
    return wanted


def value(text: str) -> Any:
    """What the text spells, if it is JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
