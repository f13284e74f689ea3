"""A tokenizer as a GGUF header holds it: tokens, kinds, merges or scores, how text is split, and the chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sysml_run import pretokenizers
from sysml_run.errors import StageError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # gguf.TokenType
A_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


@dataclass(frozen=True)
class Words:
    """`model` is gpt2 (byte-level BPE, with merges) or llama (SentencePiece, with scores)."""

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    ids: Mapping[str, int]
    add_bos: bool
    add_eos: bool
    space_prefix: bool
    template: str | None


def read(tokenizer: Any, size: int, ends: Sequence[int], template: str | None) -> Words:
    """`size` is the number of rows of the embedding, `ends` the ids that end an answer, the tokenizer's own first.

    Raises StageError for a tokenizer that llama.cpp has nothing alike for.
    """
    value = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces, pre = pretokenizers.pieces(value), splitting(value)
    tokens, kinds = listed(tokenizer, value, size)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in value["model"]["merges"]]
    seen = tokenizer("a").input_ids
    return Words(
        model="llama" if pieces else "gpt2",
        pre=pre,
        tokens=tokens,
        kinds=kinds,
        merges=[] if pieces else merges,
        scores=scores(tokens, merges) if pieces else [],
        ids=special(tokenizer, ends),
        add_bos=seen[0] == tokenizer.bos_token_id,
        add_eos=seen[-1] == tokenizer.eos_token_id,
        space_prefix=pieces and prefixed(value),
        template=GENERATION.sub("", template) if template else None,
    )


def splitting(value: Mapping[str, Any]) -> str:
    """llama.cpp's name of how the tokenizer (its tokenizer.json) splits text. Raises StageError."""
    found = pretokenizers.splitting(value)
    if found is None:
        message = "the model's tokenizer is none that llama.cpp is known here to have"
        raise StageError(message, "remove the gguf export from quantization.export")
    return found


def prefixed(value: Mapping[str, Any]) -> bool:
    """Whether a blank is put in front of a text."""
    text = json.dumps([value.get("normalizer"), value.get("pre_tokenizer")])
    return '"Prepend"' in text or '"prepend_scheme": "first"' in text or '"prepend_scheme": "always"' in text


def listed(tokenizer: Any, value: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token by id and its kind; rows of the embedding that no token has are filled up. Raises StageError."""
    words = {number: token for token, number in tokenizer.get_vocab().items()}
    if max(words) >= size:
        hint = "name the tokenizer that the model was published with"
        raise StageError(f"the tokenizer has {max(words) + 1} tokens, the model {size}", hint)
    added = {token["id"]: CONTROL if token["special"] else USER_DEFINED for token in value["added_tokens"]}
    unknown = value["model"].get("unk_token")
    tokens, kinds = [], []
    for number in range(size):
        token = words.get(number)
        tokens.append(f"[PAD{number}]" if token is None else token)
        if token is None:
            kinds.append(UNUSED)
        elif token == unknown:
            kinds.append(UNKNOWN)
        else:
            plain = BYTE if A_BYTE.fullmatch(token) and value["model"].get("byte_fallback") else NORMAL
            kinds.append(added.get(number, plain))
    return tokens, kinds


def scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """SentencePiece merges the pair with the highest score first: the place of a token's first merge, negated."""
    first: dict[str, int] = {}
    for place, pair in enumerate(merges):
        first.setdefault(pair.replace(" ", ""), place)
    return [-float(first.get(token, len(merges))) for token in tokens]


def special(tokenizer: Any, ends: Sequence[int]) -> dict[str, int]:
    """Ids by GGUF's names; an answer also ends at `eot`, which is left out where it is `eos`."""
    found = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    others = [end for end in ends if end != found["eos"]]
    found["eot"] = others[0] if others else None
    return {name: number for name, number in found.items() if number is not None}


def write(writer: Any, words: Words) -> None:
    """Into the header."""
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    if words.scores:
        writer.add_token_scores(words.scores)
        writer.add_add_space_prefix(words.space_prefix)
    else:
        writer.add_token_merges(words.merges)
    for name, number in words.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(words.add_bos)
    writer.add_add_eos_token(words.add_eos)
    if words.template is not None:
        writer.add_chat_template(words.template)
