"""Token ids and labels of one row: which tokens count in the loss, and where the row ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sysml_run.errors import DataError

from .render import Rendered, Span
from .tokens import Encoder, Tokens

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """`learned` are the tokens that count in the loss, as pairs of the first and the one behind the last, in order.

    `prompt_len` is the index of the last answer's first token, `end` its end token. `cut` tokens of the prompt are
    gone; `bos_added`: the begin token is the tokenizer's and not the template's.
    """

    id: str
    ids: list[int]
    learned: tuple[tuple[int, int], ...]
    prompt_len: int
    prompt: str
    completion: str
    end: str
    apart: bool = False
    cut: int = 0
    bos_added: bool = False

    @property
    def labels(self) -> list[int]:
        """The ids that count, not shifted, and IGNORED for the others."""
        found = [IGNORED] * len(self.ids)
        for begin, stop in self.learned:
            found[begin:stop] = self.ids[begin:stop]
        return found

    @property
    def loss_tokens(self) -> int:
        """Labels that count; the first is never predicted, as nothing stands before it."""
        return sum([stop - max(begin, 1) for begin, stop in self.learned if stop > 1])

    def without(self, start: int, stop: int, prompt: str) -> Row:
        """The row without tokens `start` to `stop`, which are of its prompt; `prompt` is the text that is left."""
        ids, gone = self.ids[:start] + self.ids[stop:], stop - start
        moved = [[at if at <= start else max(start, at - gone) for at in pair] for pair in self.learned]
        learned = tuple((begin, end) for begin, end in moved if begin < end)
        return replace(self, ids=ids, learned=learned, prompt_len=self.prompt_len - gone, prompt=prompt)


class Labeller:
    """Marks what is learned: `completion` the last answer, `assistant` every answer, `all` everything."""

    def __init__(self, encoder: Encoder, train_on: str) -> None:
        self.encoder, self.train_on = encoder, train_on

    def __call__(self, row: Rendered, tokens: Tokens, place: str) -> Row:
        """The row up to its last answer's end token, which is appended where the template writes none."""
        *others, last = row.answers
        first, stop, ended = self.answer(row, tokens, last)
        ids = tokens.ids if stop == len(tokens.ids) else tokens.ids[:stop]
        text_end = tokens.chars(stop - 1)[0] if ended else last.start + len(row.text[last.start : last.end].rstrip())
        if not ended:
            ids = [*ids, self.eos()]
        learned = [(0, len(ids))] if self.train_on == "all" else [(first, len(ids))]
        if others and self.train_on == "assistant":
            learned[:0] = [self.answer(row, tokens, span)[:2] for span in others]
        prompt, completion = row.text[: last.start], row.text[last.start : text_end]
        name = self.encoder.name(ids[-1])
        return Row(place, ids, tuple(learned), first, prompt, completion, name, tokens.apart, bos_added=row.bos_added)

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
    return row.without(0, 1, row.prompt.removeprefix(text))
