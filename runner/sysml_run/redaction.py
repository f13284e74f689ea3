"""Whether a pattern of `datasets.redact` can be used."""

from __future__ import annotations

import re


def problem(pattern: str) -> str | None:
    """What is wrong with the regular expression, in a few words; None where nothing is."""
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    if compiled.match("") is not None:
        return "matches the empty text, so the replacement would stand between all characters"
    return None
