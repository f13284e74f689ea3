"""What is surely wrong with a Jinja template or expression, told without Jinja, whose import costs more than the rest.

The rest is left to Jinja itself, by which the first stage of a run compiles every text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

OPENERS = re.compile(r"\{\{[-+]?|\{%[-+]?|\{#")
CLOSERS = {"{{": re.compile(r"\s*[-+]?\}\}"), "{%": re.compile(r"\s*[-+]?%\}")}
CLOSED = {"{{": "}}", "{%": "%}", "{#": "#}"}
RAW = re.compile(r"\s*raw\s*[-+]?%\}")
END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
BLOCK = re.compile(r"\s*(end)?(for|if|macro|call|filter)\b")
TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>\w+)|(?P<open>[([{])|(?P<close>[])}])"""
    r"""|(?P<unary>[-+])|(?P<binary>\*\*|//|==|!=|<=|>=|[~*/%<>|])|(?P<other>[=.,:])|(?P<wrong>\S))""",
    re.DOTALL,
)
PAIRS = {")": "(", "]": "[", "}": "{"}
BETWEEN = ("and", "or", "else", "in", "is", "if")  # operators behind an operand, else names


def slip(text: str, *, expression: bool = False) -> str | None:
    """What Jinja would surely refuse, found without Jinja; None where nothing is."""
    if expression:
        return _expression(text)
    found = [wrong for wrong in _parts(text) if wrong]
    return found[0] if found else None


def _parts(text: str) -> Iterator[str | None]:
    """What is wrong with each part in braces, and with how blocks are nested."""
    at, blocks = 0, list[str]()
    while found := OPENERS.search(text, at):
        kind, start = found[0][:2], found.end()
        if kind == "{#" and start == len(text):
            break  # Jinja does not mind
        raw = RAW.match(text, start) if kind == "{%" else None
        end = END_RAW.search(text, raw.end()) if raw else None
        if raw and end:
            at = end.end()
            continue
        if raw:
            yield "{% raw %} has no {% endraw %}"
            return
        at = text.find("#}", start) + 2 if kind == "{#" else _end(text, start, CLOSERS[kind])
        if at < start:
            yield f"{kind} has no {CLOSED[kind]}"
            return
        inside = re.sub(r"[-+]?[}%]\}$", "", text[start:at])
        yield _expression(inside) if kind == "{{" else _block(inside, blocks) if kind == "{%" else None
    yield f"{{% {blocks[-1]} %}} has no {{% end{blocks[-1]} %}}" if blocks else None


def _end(text: str, at: int, closer: re.Pattern[str]) -> int:
    """Behind the closing braces, 0 where there are none; inside brackets and quotes none are looked for."""
    depth = 0
    while at < len(text):
        end = closer.match(text, at)
        if end and depth == 0:
            return end.end()
        token = TOKEN.match(text, at)
        if token is None:
            return 0
        depth += (token["open"] is not None) - (token["close"] is not None)
        at = token.end()
    return 0


def _block(inside: str, blocks: list[str]) -> str | None:
    """Keep account of the blocks that are open."""
    found = BLOCK.match(inside)
    if found and not found[1]:
        blocks.append(found[2])
    elif found and (not blocks or blocks.pop() != found[2]):
        return f"{{% end{found[2]} %}} ends no {found[2]}"
    return None


def _expression(text: str) -> str | None:
    """Brackets, quotes, and operators between operands; the rest is left to Jinja."""
    opened: list[str] = []
    before, kind, tested = "", "operator", False
    for token in TOKEN.finditer(text):
        word = token[0].strip()
        wrong = _token(token, word, before, kind, opened, tested)
        if wrong:
            return wrong
        opened += [word] if token["open"] else []
        wanted = kind == "operator"
        kind, before = _kind(token, word, before, kind, tested), word
        tested = word == "is" or (tested and (word == "not" or (wanted and token["word"] is not None)))
    if opened:
        return f"{opened[-1]} is never closed"
    return "it is unfinished" if kind == "operator" else None


def _token(token: re.Match[str], word: str, before: str, kind: str, opened: list[str], tested: bool) -> str | None:
    """What is wrong with a token behind `before`; closes the bracket that it closes."""
    if token["wrong"]:
        return f"a {word} that is never closed" if word in "\"'" else f"{word} means nothing in Jinja"
    if token["close"] and (not opened or opened.pop() != PAIRS[word]):
        return f"{word} closes nothing"
    if kind == "operator" and before and (token["binary"] or token["close"] or word == "="):
        return f"nothing stands before {word}"
    if word == "=" and not opened:
        return "= sets a value; == compares"
    operand = token["word"] and word not in (*BETWEEN, "not")
    if operand and kind == "operand" and not tested:
        return f"nothing stands between {before} and {word}"
    return None


def _kind(token: re.Match[str], word: str, before: str, kind: str, tested: bool) -> str:
    """Whether what follows has an operand before it, or wants one; "" where both may be."""
    between = BETWEEN[:3] if tested else BETWEEN  # behind a test the others are names: its argument
    joins = word == "not" or (word in between and kind == "operand")
    if token["binary"] or token["unary"] or (joins and before != "."):
        return "operator"
    return "operand" if token["word"] or token["text"] or token["close"] else ""
