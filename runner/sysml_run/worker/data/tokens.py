"""Rendered text as token ids, cut where the model will be asked to go on.

The prompt's ids must be those that inference sees when it tokenizes the prompt alone. Added special tokens split the
text before anything else does, so it is enough to tokenize the piece from the last special token up to the answer and
compare; one batch holds few different such pieces. Where they differ (a token merges across the boundary), prompt and
answer are tokenized apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sysml_run.errors import DataError

from .render import Rendered

LEAD = "\n"  # what stands in front of a piece that must not be tokenized as the start of a text


@dataclass(slots=True)
class Piece:
    """An encoding that starts at this character and this token of the row, `lead` tokens of the encoding aside.

    Those stand for the `LEAD` in front of the text, which is no part of the row.
    """

    char: int
    token: int
    encoding: Any
    lead: int = 0

    def at(self, char: int) -> int:
        """The row's token that holds the row's character, or the next one where it is in none."""
        place = char - self.char + bool(self.lead)
        found = self.encoding.char_to_token(place)
        if found is None:
            starts = (start for start, end in self.encoding.offsets if end > start)
            found = sum(start < place for start in starts)
        return int(self.token + found - self.lead)

    def chars(self, token: int) -> tuple[int, int]:
        start, end = self.encoding.token_to_chars(token - self.token + self.lead)
        first = self.char - bool(self.lead)
        return first + start, first + end


class Tokens:
    """The ids of one row; `apart` when prompt and answers had to be tokenized on their own."""

    __slots__ = ("apart", "ids", "pieces")

    def __init__(self, pieces: list[Piece], ids: list[int]) -> None:
        self.pieces, self.ids, self.apart = pieces, ids, len(pieces) > 1

    @classmethod
    def joined(cls, encodings: Sequence[Any], chars: Sequence[int], leads: Sequence[int]) -> Tokens:
        """The row of which each encoding begins at one of `chars`, but for as many tokens as `leads` says."""
        pieces, ids = list[Piece](), list[int]()
        for encoding, char, lead in zip(encodings, chars, leads, strict=True):
            pieces.append(Piece(char, len(ids), encoding, lead))
            ids += encoding.ids[lead:]
        return cls(pieces, ids)

    def at(self, char: int) -> int:
        """The token that holds the character, or the next one where it is in none."""
        if not self.apart:
            return self.pieces[0].at(char)
        return next(piece for piece in reversed(self.pieces) if piece.char <= char).at(char)

    def chars(self, token: int) -> tuple[int, int]:
        """First character of the token in the row's text, and the one behind its last."""
        if not self.apart:
            return self.pieces[0].chars(token)
        return next(piece for piece in reversed(self.pieces) if piece.token <= token).chars(token)


class Encoder:
    """The fast tokenizer behind a `PreTrainedTokenizerFast`, in batches and without adding anything of its own."""

    def __init__(self, tokenizer: Any) -> None:
        self.backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self.backend is None:
            raise DataError("the tokenizer has no tokenizer.json", "name one that has, with model.tokenizer")
        self.backend.no_truncation()
        self.backend.no_padding()
        added = tokenizer.added_tokens_decoder
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.bos_text: str = tokenizer.bos_token or ""
        self.special = {id for id, token in added.items() if token.special and not token.normalized}
        self.added = {id: token.content for id, token in added.items() if token.content.strip()}
        self.lead = self.prefix()

    def prefix(self) -> list[int]:
        """Ids of `LEAD` for a tokenizer that puts a space before the first word of a text; none for any other."""
        lead, word, both = (each.ids for each in self.plain([LEAD, "a", f"{LEAD}a"]))
        return list(lead) if both != [*lead, *word] and both[: len(lead)] == lead else []

    def special_texts(self) -> set[str]:
        """What a special token looks like in text; the tokenizer reads it as one wherever it stands."""
        return {self.added[id] for id in self.special if id in self.added}

    def name(self, id: int) -> str:
        return str(self.backend.id_to_token(id))

    def ends(self, id: int, span: str, content: str) -> bool:
        """Whether a token that ends an answer's `span` of text is the template's end token, not the content's own."""
        if id != self.eos and id not in self.added:
            return False
        text = self.added.get(id) or self.name(id)
        return span.count(text) > content.count(text)

    def plain(self, texts: Sequence[str]) -> list[Any]:
        return list(self.backend.encode_batch(list(texts), add_special_tokens=False))

    def __call__(self, rows: Sequence[Rendered]) -> list[Tokens]:
        """Ids of each row."""
        encodings = self.plain([row.text for row in rows])
        made = [Tokens([Piece(0, 0, encoding)], encoding.ids) for encoding in encodings]
        checks = [
            (n, *self.boundary(made[n], row.text, span.start)) for n, row in enumerate(rows) for span in row.answers
        ]
        alone = self.ids_of({tail for _, tail, _ in checks})
        broken = {n for n, tail, ids in checks if alone[tail] != ids}
        return [self.apart(row) if n in broken else made[n] for n, row in enumerate(rows)]

    def ids_of(self, texts: set[str]) -> dict[str, list[int]]:
        order = sorted(texts)
        return {text: encoding.ids for text, encoding in zip(order, self.plain(order), strict=True)}

    def boundary(self, tokens: Tokens, text: str, start: int) -> tuple[str, list[int]]:
        """The piece of prompt to tokenize alone, and the ids it must come to."""
        stop, ids = tokens.at(start), tokens.ids
        first = stop - 1
        while first > 0 and ids[first] not in self.special:
            first -= 1
        char = tokens.chars(first)[0] if first > 0 else 0
        return text[char:start], ids[max(first, 0) : stop]

    def apart(self, row: Rendered) -> Tokens:
        """The row with every trained answer begun anew, in the middle of a text and not as the start of one."""
        cuts = [0, *(span.start for span in row.answers if span.start)]
        ends = [*cuts[1:], len(row.text)]
        first, *others = (row.text[a:b] for a, b in zip(cuts, ends, strict=True))
        plain = self.plain([first, *others])
        leading = [plain[0], *self.plain([LEAD + text for text in others])]
        leads = [0] + [len(self.lead) * (each.ids[: len(self.lead)] == self.lead) for each in leading[1:]]
        return Tokens.joined([b if lead else a for a, b, lead in zip(plain, leading, leads, strict=True)], cuts, leads)
