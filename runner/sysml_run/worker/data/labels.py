"""Token ids and labels of one row: which tokens count in the loss, and where the row ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sysml_run.errors import DataError

from .render import Rendered, Span
from .tokens import Encoder, Tokens

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """`labels` are not shifted; `prompt_len` is the index of the last answer's first token, `end` its end token."""

    id: str
    ids: list[int]
    labels: list[int]
    prompt_len: int
    prompt: str
    completion: str
    end: str
    apart: bool = False
    truncated: bool = False

    @property
    def loss_tokens(self) -> int:
        """Labels that count; the first is never predicted, as nothing stands before it."""
        return len(self.labels) - self.labels.count(IGNORED) - (self.labels[0] != IGNORED)


class Labeller:
    """Marks what is learned: `completion` the last answer, `assistant` every answer, `all` everything."""

    def __init__(self, encoder: Encoder, train_on: str) -> None:
        self.encoder, self.train_on = encoder, train_on

    def __call__(self, row: Rendered, tokens: Tokens, place: str) -> Row:
        """The row up to its last answer's end token, which is appended where the template writes none."""
        last = row.answers[-1]
        first, stop, ended = self.answer(row, tokens, last)
        ids = tokens.ids[:stop]
        labels = list(ids) if self.train_on == "all" else [IGNORED] * len(ids)
        for span in row.answers:
            begin, end, _ = self.answer(row, tokens, span)
            labels[begin:end] = ids[begin:end]
        text_end = tokens.chars(stop - 1)[0] if ended else last.start + len(row.text[last.start : last.end].rstrip())
        if not ended:
            ids, labels = [*ids, self.eos()], [*labels, self.eos()]
        prompt, completion = row.text[: last.start], row.text[last.start : text_end]
        return Row(place, ids, labels, first, prompt, completion, self.encoder.name(ids[-1]), tokens.apart)

    def answer(self, row: Rendered, tokens: Tokens, span: Span) -> tuple[int, int, bool]:
        """First token, the one behind the last, and whether that last one is an end token."""
        first = tokens.at(span.start)
        stop = len(tokens.ids) if span.end == len(row.text) else tokens.at(span.end)
        text = row.text[span.start : span.end]
        for token in range(stop - 1, first - 1, -1):
            if self.encoder.ends(tokens.ids[token], text, span.content):
                return first, token + 1, True
            if row.text[tokens.chars(token)[0] : span.end].strip():
                break
        end = span.start + len(text.rstrip())
        after = tokens.at(end) if end < span.end else stop
        return first, after + (after < stop and tokens.chars(after)[0] < end), False

    def eos(self) -> int:
        if self.encoder.eos is None:
            raise DataError("the template ends no answer and the tokenizer has no end token", "name another tokenizer")
        return int(self.encoder.eos)


def one_bos(row: Row, bos: int | None, text: str) -> Row:
    """The row without the second of two begin tokens in front: one came from the template, one from the data."""
    if bos is None or row.ids[:2] != [bos] * 2 or row.prompt_len < 2:
        return row
    return replace(
        row, ids=row.ids[1:], labels=row.labels[1:], prompt_len=row.prompt_len - 1, prompt=row.prompt.removeprefix(text)
    )
