"""What a tokenizer puts in front of a text, and what makes text behind a special token begin a word."""

from __future__ import annotations

from typing import Any

GAPS = ("", " ")


def begins(tokenizer: Any) -> bool:
    """Whether the tokenizer by itself puts its begin token in front of a text."""
    first = tokenizer.bos_token_id
    return first is not None and ids(tokenizer, "a", special=True)[:1] == [first]


def gap(tokenizer: Any) -> str:
    """What must stand between a special token and text for the text to be tokenized as it is at the start of a row.

    A space where the tokenizer marks the start of a word only in front of a whole row (Metaspace, `first`), nothing
    where it does so behind every special token (the Llama 2 normalizer) or never (byte-level BPE).
    """
    token = tokenizer.bos_token or tokenizer.eos_token
    plain = ids(tokenizer, "a")
    return next((gap for gap in GAPS if ids(tokenizer, f"{token}{gap}a")[1:] == plain), "")


def ids(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special).input_ids)
