"""How a tokenizer splits text before byte-level BPE, by the names that llama.cpp has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DIGITS, WORDS = "digits", "words"
SPLITTING: Mapping[tuple[str, ...], str] = {  # llama.cpp's names are in its src/llama-vocab.cpp
    (WORDS,): "gpt-2",
    (DIGITS, WORDS): "smollm",
    (CONTRACTIONS + r"\p{N}{1,3}" + REST,): "llama-bpe",
    (CONTRACTIONS + r"\p{N}" + REST,): "qwen2",
    (TEKKEN,): "tekken",
}


def pieces(value: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is of the SentencePiece kind, which splits nothing beforehand."""
    return value["model"]["type"] == "BPE" and bool(value["model"].get("byte_fallback"))


def splitting(value: Mapping[str, Any]) -> str | None:
    """The name for a tokenizer.json; None where llama.cpp is not known here to have such a tokenizer."""
    if value["model"]["type"] != "BPE":
        return None
    if pieces(value):
        return "default"
    first = value.get("pre_tokenizer") or {}
    return SPLITTING.get(tuple(filter(None, map(_step, first.get("pretokenizers", [first])))))


def _step(found: Mapping[str, Any]) -> str:
    """One step as SPLITTING writes it; empty for one that only spells bytes as letters."""
    match found:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": bool(words)}:
            return WORDS if words else ""
        case {"type": "Digits", "individual_digits": True}:
            return DIGITS
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return str(pattern)
    return str(found)
