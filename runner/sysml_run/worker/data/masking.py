"""Texts with numbers and hex masked, and short digests to compare rows by."""

from __future__ import annotations

import hashlib
import re

# 0x and what follows, or a run of hexadecimal digits of which at least one is decimal
NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9a-fA-F]*[0-9][0-9a-fA-F]*")
DIGEST_BYTES = 16


def mask(text: str) -> str:
    """The text with every number and hexadecimal run, however long, as one `#`."""
    return NUMBER.sub("#", text)


def digest(text: str) -> bytes:
    """16 bytes that stand for the text; UnicodeEncodeError where it holds a lone surrogate."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def priority(seed: int, content: bytes) -> bytes:
    """A row's place in an order that depends on the seed and its own content and on nothing around it."""
    return hashlib.sha256(seed.to_bytes(8, "big") + content).digest()
