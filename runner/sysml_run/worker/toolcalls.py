"""Calls of tools in a text, whatever stands around them: written as JSON, or as a name in front of its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

BEGIN = re.compile(r"[{[]")
NAMED = re.compile(r"([\w.-]+)(?:\[ARGS\])?\Z")  # Mistral's form since its 11th tokenizer; the mark is a special token
LONGEST_NAME = 100


def calls(text: str) -> list[str]:
    """Each call as canonical JSON of its name and arguments, in order; none of a text that is nested too deeply."""
    try:
        return [json.dumps(call, sort_keys=True) for call in _calls(text)]
    except RecursionError:
        return []


def _calls(text: str) -> Iterator[dict[str, Any]]:
    decoder, at = json.JSONDecoder(), 0
    while begin := BEGIN.search(text, at):
        try:
            value, at = decoder.raw_decode(text, begin.start())
        except ValueError:
            at = begin.start() + 1
            continue
        found = list(_inside(value))
        name = NAMED.search(text[max(0, begin.start() - LONGEST_NAME) : begin.start()])
        if not found and name and isinstance(value, dict):
            found = [{"name": name[1], "arguments": value}]
        yield from found


def _inside(value: Any) -> Iterator[dict[str, Any]]:
    """Calls of a list, of OpenAI's `tool_calls` and `function`, or the value itself."""
    if isinstance(value, list):
        for item in value:
            yield from _inside(item)
    elif isinstance(value, dict) and isinstance(value.get("name"), str):
        arguments = value.get("arguments", value.get("parameters"))
        if arguments is not None:
            yield {"name": value["name"], "arguments": _read(arguments)}
    elif isinstance(value, dict):
        yield from _inside(value.get("tool_calls", value.get("function")))


def _read(arguments: Any) -> Any:
    """OpenAI writes the arguments as JSON text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments
