"""The second pass, a chunk of rows at a time: spooled conversations to token ids and labels in an Arrow file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sysml_run.recipe import Prompt

from .conversations import Left
from .labels import IGNORED, Labeller, Row, one_bos
from .length import fit
from .render import RefusedError, Rendered, Renderer
from .rowtypes import Message
from .store import Writer, packed, ragged
from .tokens import Encoder, Tokens

BATCH = 256  # rows that are written at once
AT_ONCE = 2**20  # characters tokenized at once, or more: going to and fro costs the tokenizer its place in the caches

Text: TypeAlias = tuple[str, Rendered, int]  # a row's place, its text and its number


@dataclass
class Counts:
    """Of the rows of one chunk or of all; the lists have an entry for each row that was kept, `rows` its number."""

    rows: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    loss_tokens: list[int] = field(default_factory=list)
    prompt_lens: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    end_tokens: Counter[str] = field(default_factory=Counter)
    tokenized_apart: int = 0
    special_in_text: int = 0
    bos_added: int = 0
    refusal: str | None = None
    example: dict[str, Any] | None = None

    def add(self, row: Row, number: int) -> None:
        self.rows.append(number)
        self.lengths.append(len(row.ids))
        self.loss_tokens.append(row.loss_tokens)
        self.prompt_lens.append(row.prompt_len)
        self.cut.append(row.cut)
        self.end_tokens[row.end] += 1
        self.tokenized_apart += row.apart
        self.bos_added += row.bos_added
        if self.example is None:
            self.example = {"id": row.id, "prompt": row.prompt, "completion": row.completion, "end": row.end}


class Encode:
    """Renders, tokenizes, labels and fits rows with one tokenizer."""

    def __init__(self, tokenizer: Any, prompt: Prompt) -> None:
        self.prompt, self.renderer = prompt, Renderer(tokenizer, prompt.template, prompt.train_on)
        self.encoder = Encoder(tokenizer)
        self.labeller = Labeller(self.encoder, prompt.train_on)
        self.special = re.compile("|".join(map(re.escape, sorted(self.encoder.special_texts()))) or r"(?!)")

    def __call__(self, values: Iterator[Any], numbers: Sequence[int], path: Path) -> Counts:
        """Write every row that keeps a loss token to `path`; `values` are spooled, `numbers` what to call them."""
        made, pairs = Counts(), zip(values, numbers, strict=True)
        with Writer(path) as writer:
            for batches in self.rendered(pairs, made):
                for rows in self.batches(batches, made):
                    if rows:
                        writer.write(columns(rows))
        return made

    def rendered(self, pairs: Iterator[tuple[Any, int]], made: Counts) -> Iterator[list[list[Text]]]:
        """Batches of texts, as many together as are tokenized at once."""
        found, size = list[list[Text]](), 0
        while batch := list(islice(pairs, BATCH)):
            found.append(list(self.texts(batch, made)))
            size += sum([len(text.text) for _, text, _ in found[-1]])
            if size >= AT_ONCE:
                yield found
                found, size = [], 0
        yield found

    def texts(self, batch: list[tuple[Any, int]], made: Counts) -> Iterator[Text]:
        """The rows of a batch that the template takes."""
        for (place, messages), number in batch:
            text = self.render(messages, place, made)
            if text is not None:
                yield place, text, number

    def batches(self, batches: list[list[Text]], made: Counts) -> Iterator[list[Row]]:
        """The rows of each batch that stay, counted in `made`."""
        found = iter(self.encoder([text for batch in batches for _, text, _ in batch]))
        for batch in batches:
            yield list(self.rows(batch, found, made))

    def rows(self, batch: list[Text], found: Iterator[Tokens], made: Counts) -> Iterator[Row]:
        for place, text, number in batch:
            row = self.row(place, text, next(found))
            if isinstance(row, Left):
                made.dropped[row.reason] += 1
            else:
                made.add(row, number)
                yield row

    def row(self, place: str, text: Rendered, tokens: Tokens) -> Row | Left:
        """The labelled row, no longer than it may be and with something to learn."""
        row = fit(self.labeller(text, tokens, place), text, tokens, self.prompt, self.encoder.bos)
        if isinstance(row, Row) and not row.loss_tokens:
            return Left("no_loss_token")
        return one_bos(row, self.encoder.bos, self.encoder.bos_text) if isinstance(row, Row) else row

    def render(self, messages: list[Message], place: str, made: Counts) -> Rendered | None:
        made.special_in_text += any(
            self.special.search(message.get("content") or "") is not None for message in messages
        )
        try:
            return self.renderer(messages, place)
        except RefusedError as error:
            made.dropped["template_error"] += 1
            made.refusal = made.refusal or f"row {place}: {error}"
            return None


def columns(rows: list[Row]) -> dict[str, Any]:
    """The batch by column, as the store names them."""
    lengths = [len(row.ids) for row in rows]
    ids = np.frombuffer(b"".join([packed(row.ids) for row in rows]), np.int32)
    return {
        "input_ids": ragged(ids, lengths),
        "labels": ragged(labels(rows, ids), lengths),
        "length": lengths,
        "loss_tokens": [row.loss_tokens for row in rows],
        "prompt_len": [row.prompt_len for row in rows],
        "id": [row.id for row in rows],
        "prompt": [row.prompt for row in rows],
        "completion": [row.completion for row in rows],
    }


def labels(rows: list[Row], ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Those of all rows, whose `ids` stand in one array."""
    found, at = np.full_like(ids, IGNORED), 0
    for row in rows:
        for begin, stop in row.learned:
            found[at + begin : at + stop] = ids[at + begin : at + stop]
        at += len(row.ids)
    return found
