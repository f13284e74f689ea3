"""Rows that already are conversations: chat messages, ShareGPT, calls of tools, preference pairs."""

from __future__ import annotations

from typing import Any

from .documents import parse

Row = dict[str, Any]
Message = dict[str, Any]

ROLES = frozenset({"system", "user", "assistant", "tool"})
RENAMED = {"developer": "system", "function": "tool"}  # other names of the same roles in OpenAI's files
TAGS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class BadMessagesError(Exception):
    """A row that is not the conversation its type says; `reason` is a key of the report."""

    def __init__(self, reason: str = "bad_messages") -> None:
        super().__init__(reason)
        self.reason = reason


def messages(row: Row) -> list[Message]:
    return [*tools(row), *conversation(field(row, "messages"))]


def prompt_and_completion(row: Row) -> list[Message] | None:
    """Lists of messages joined; None where both are text, which the map then prints."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, list) and not isinstance(completion, list):
        return None
    return [*tools(row), *conversation(as_turns(prompt, "user") + as_turns(completion, "assistant"))]


def sharegpt(row: Row) -> list[Message]:
    """`from` and `value` as roles and content; the row's own `system` in front where no turn is one."""
    said = [tagged(item) for item in listed(field(row, "conversations"))]
    system = row.get("system")
    if isinstance(system, str) and system.strip() and said[0]["role"] != "system":
        said.insert(0, {"role": "system", "content": system})
    return [*tools(row), *conversation(said)]


def with_tools(row: Row) -> list[Message]:
    """Any of three shapes: messages, conversations, or a query and its answers; `tools` must be there."""
    if not row.get("tools"):
        raise BadMessagesError("no_tools")
    if row.get("messages"):
        return messages(row)
    if row.get("conversations"):
        return sharegpt(row)
    asked = {"role": "user", "content": field(row, "query")}
    return [*tools(row), *conversation([asked, {"role": "assistant", "tool_calls": field(row, "answers")}])]


def preference(row: Row) -> list[Message]:
    """The conversation with the chosen answer, once both are found to answer the same question differently."""
    chosen, rejected = (answered(row, name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise BadMessagesError("two_questions")
    if chosen[-1] == rejected[-1]:
        raise BadMessagesError("same_answers")
    return [*tools(row), *chosen]


def answered(row: Row, name: str) -> list[Message]:
    """One side of a pair with its question, which may stand in `prompt` or at the start of the side itself."""
    said = as_turns(field(row, name), "assistant")
    before = [] if row.get("prompt") is None or len(said) > 1 else as_turns(row["prompt"], "user")
    found = conversation(before + said)
    if len(found) < 2 or found[-1]["role"] != "assistant" or not has_answer(found[-1]):
        raise BadMessagesError
    return found


def has_answer(message: Message) -> bool:
    """Whether the message has text or calls a tool."""
    return bool(message["content"].strip() or message.get("tool_calls"))


def history(row: Row) -> list[Message]:
    """Alpaca's `history`, a list of [question, answer], as the turns before the row's own."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise BadMessagesError
    turns = [("user", "assistant")[place] for _ in pairs for place in (0, 1)]
    said = [text for pair in pairs for text in pair]
    return [message({"role": role, "content": text}) for role, text in zip(turns, said, strict=True)]


def as_turns(value: Any, role: str) -> list[Any]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def field(row: Row, name: str) -> Any:
    """The field's value; a row without it is none of its type."""
    if row.get(name) is None:
        raise BadMessagesError("not_a_row")
    return row[name]


def listed(value: Any) -> list[Any]:
    """The value, or the JSON in it where it is text (as in CSV files), as a list that is not empty."""
    found = parsed(value) if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise BadMessagesError
    return found


def parsed(text: str) -> Any:
    try:
        return parse(text.encode())
    except (ValueError, RecursionError) as error:
        raise BadMessagesError from error


def conversation(value: Any) -> list[Message]:
    """The messages with their text in one piece; BadMessagesError where that is not what they are."""
    return [message(item) for item in listed(value)]


def message(item: Any) -> Message:
    """Known role, text content, calls in one form; keys that are null are those a columnar file adds to every turn."""
    if not isinstance(item, dict):
        raise BadMessagesError
    kept = {key: value for key, value in item.items() if value is not None and key not in ("weight", "train")}
    kept["role"] = RENAMED.get(str(item.get("role")), item.get("role"))
    kept["content"] = text(item.get("content"), calls=bool(item.get("tool_calls")))
    if kept["role"] not in ROLES:
        raise BadMessagesError
    if kept.pop("tool_calls", None):
        kept["tool_calls"] = [call(each) for each in listed(item["tool_calls"])]
    if item.get("train") is False or item.get("weight") == 0:
        kept["train"] = False
    return kept


def text(content: Any, *, calls: bool) -> str:
    """The content as text; a message that calls tools may have none."""
    if isinstance(content, list):
        return "".join(text_part(part) for part in content)
    if content is None and calls:
        return ""
    if not isinstance(content, str):
        raise BadMessagesError
    return content


def text_part(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise BadMessagesError
    return str(part["text"])


def tagged(item: Any) -> Message:
    """A ShareGPT turn as a message; a call of a function is JSON in its value."""
    if not isinstance(item, dict) or item.get("from") not in TAGS:
        raise BadMessagesError
    role, value = TAGS[item["from"]], item.get("value")
    kept = {key: each for key, each in item.items() if key in ("train", "weight")}
    if item["from"] != "function_call":
        return {"role": role, "content": value, **kept}
    calls = parsed(value) if isinstance(value, str) else value
    return {"role": role, "tool_calls": calls if isinstance(calls, list) else [calls], **kept}


def call(item: Any) -> dict[str, Any]:
    """A call as {"type": "function", "function": {"name", "arguments"}}; arguments stay as written, text or not."""
    if not isinstance(item, dict):
        raise BadMessagesError
    function = item.get("function", item)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadMessagesError
    arguments = function.get("arguments", {})
    if not isinstance(parsed(arguments) if isinstance(arguments, str) else arguments, dict):
        raise BadMessagesError
    outer = {key: value for key, value in item.items() if key in ("id", "type") and value is not None}
    return {"type": "function", **outer, "function": {"name": function["name"], "arguments": arguments}}


def tools(row: Row) -> list[Message]:
    """The row's `tools` (a list, or JSON text of one) as the message `tools` in front; none where it has none."""
    if not row.get("tools"):
        return []
    return [{"role": "tools", "tools": [tool(item) for item in listed(row["tools"])]}]


def tool(item: Any) -> dict[str, Any]:
    """A function's description in the form {"type": "function", "function": {...}}."""
    if not isinstance(item, dict):
        raise BadMessagesError
    function = item["function"] if isinstance(item.get("function"), dict) else item
    if not isinstance(function.get("name"), str):
        raise BadMessagesError
    return {"type": "function", "function": function}
