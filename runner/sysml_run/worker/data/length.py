"""Rows longer than `sequence_len`: the prompt is cut on one side; the answer and its end token always survive."""

from __future__ import annotations

from dataclasses import replace

from sysml_run.errors import DataError
from sysml_run.recipe import Prompt

from .conversations import Left
from .labels import Row
from .render import Rendered
from .tokens import Tokens


def fit(row: Row, rendered: Rendered, tokens: Tokens, prompt: Prompt, bos: int | None) -> Row | Left:
    """The row at no more than `sequence_len` tokens, or the reason why it cannot be.

    left cuts the start of the prompt (a begin token stays), right cuts the end of the last message before the answer
    (the answer's own header stays).
    """
    limit, answer = prompt.sequence_len, len(row.ids) - row.prompt_len
    if len(row.ids) <= limit:
        return row
    if prompt.truncation == "error":
        hint = "raise prompt.sequence_len, or set prompt.truncation to left, right or drop"
        raise DataError(f"row {row.id} has {len(row.ids)} tokens and prompt.sequence_len is {limit}", hint)
    if prompt.truncation == "drop":
        return Left("too_long")
    if answer >= limit:
        return Left("answer_too_long")
    room = limit - answer
    tail = row.prompt_len - (tokens.at(rendered.tail) if rendered.tail < len(row.prompt) else row.prompt_len)
    if prompt.truncation == "right" and tail < room:
        return cut(row, tokens, room - tail, row.prompt_len - tail)
    return cut(
        row, tokens, int(row.ids[0] == bos and room > 1), row.prompt_len - room + int(row.ids[0] == bos and room > 1)
    )


def cut(row: Row, tokens: Tokens, start: int, stop: int) -> Row:
    """The row without tokens `start` to `stop` of its prompt."""
    head = row.prompt[: tokens.chars(start - 1)[1]] if start else ""
    rest = row.prompt[tokens.chars(stop)[0] :] if stop < row.prompt_len else ""
    return replace(row.without(start, stop, head + rest), cut=row.cut + stop - start)
