"""The second pass: spooled conversations to token ids and labels, in batches, written to one Arrow stream."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sysml_run.recipe import Prompt

from .conversations import Left
from .intake import Record
from .labels import Labeller, Row, one_bos
from .length import fit
from .render import RefusedError, Rendered, Renderer
from .rowtypes import Message
from .spool import Spool
from .store import Writer
from .tokens import Encoder, Tokens

BATCH = 256


@dataclass
class Encoded:
    """Counts of the kept rows, in the order they were written; `records` are theirs."""

    records: list[Record] = field(default_factory=list)
    lengths: array[int] = field(default_factory=lambda: array("i"))
    loss_tokens: array[int] = field(default_factory=lambda: array("i"))
    prompt_lens: array[int] = field(default_factory=lambda: array("i"))
    truncated: bytearray = field(default_factory=bytearray)
    dropped: Counter[str] = field(default_factory=Counter)
    end_tokens: Counter[str] = field(default_factory=Counter)
    tokenized_apart: int = 0
    special_in_text: int = 0
    refusal: str | None = None
    example: dict[str, Any] | None = None

    def add(self, row: Row, record: Record) -> None:
        self.records.append(record)
        self.lengths.append(len(row.ids))
        self.loss_tokens.append(row.loss_tokens)
        self.prompt_lens.append(row.prompt_len)
        self.truncated.append(row.truncated)
        self.end_tokens[row.end] += 1
        self.tokenized_apart += row.apart
        if self.example is None:
            self.example = {"id": row.id, "prompt": row.prompt, "completion": row.completion, "end": row.end}


class Encode:
    """Renders, tokenizes, labels and fits rows with one tokenizer."""

    def __init__(self, tokenizer: Any, prompt: Prompt) -> None:
        self.prompt, self.renderer = prompt, Renderer(tokenizer, prompt.template, prompt.train_on)
        self.encoder = Encoder(tokenizer)
        self.labeller = Labeller(self.encoder, prompt.train_on)
        self.special = re.compile("|".join(map(re.escape, sorted(self.encoder.special_texts()))) or r"(?!)")

    def __call__(self, spool: Spool, records: Sequence[Record], path: Path) -> Encoded:
        """Write every row that keeps a loss token to `path`; count the others by reason."""
        made = Encoded()
        pairs = zip(spool.read(record.offset for record in records), records, strict=True)
        with (
            Writer(path) as writer,
            tqdm(desc="prepare: tokenize", total=len(records), unit=" rows", disable=None) as bar,
        ):
            while batch := list(islice(pairs, BATCH)):
                rows = list(self.batch(batch, made))
                if rows:
                    writer.write(columns(rows))
                bar.update(len(batch))
        return made

    def batch(self, batch: list[tuple[Any, Record]], made: Encoded) -> Iterator[Row]:
        """The rows of one batch that stay, counted in `made`."""
        rendered: list[tuple[str, Rendered, Record]] = []
        for (place, messages), record in batch:
            text = self.render(messages, place, made)
            if text is not None:
                rendered.append((place, text, record))
        found = self.encoder([text for _, text, _ in rendered])
        for (place, text, record), tokens in zip(rendered, found, strict=True):
            row = self.row(place, text, tokens)
            if isinstance(row, Left):
                made.dropped[row.reason] += 1
            else:
                made.add(row, record)
                yield row

    def row(self, place: str, text: Rendered, tokens: Tokens) -> Row | Left:
        """The labelled row, no longer than it may be and with something to learn."""
        row = fit(self.labeller(text, tokens, place), text, tokens, self.prompt, self.encoder.bos)
        if isinstance(row, Row) and not row.loss_tokens:
            return Left("no_loss_token")
        return one_bos(row, self.encoder.bos, self.encoder.bos_text) if isinstance(row, Row) else row

    def render(self, messages: list[Message], place: str, made: Encoded) -> Rendered | None:
        made.special_in_text += any(self.special.search(message["content"]) is not None for message in messages)
        try:
            return self.renderer(messages, place)
        except RefusedError as error:
            made.dropped["template_error"] += 1
            made.refusal = made.refusal or f"row {place}: {error}"
            return None


def columns(rows: list[Row]) -> dict[str, list[Any]]:
    """The batch by column, as the store names them."""
    return {
        "input_ids": [row.ids for row in rows],
        "labels": [row.labels for row in rows],
        "length": [len(row.ids) for row in rows],
        "loss_tokens": [row.loss_tokens for row in rows],
        "prompt_len": [row.prompt_len for row in rows],
        "id": [row.id for row in rows],
        "prompt": [row.prompt for row in rows],
        "completion": [row.completion for row in rows],
    }
