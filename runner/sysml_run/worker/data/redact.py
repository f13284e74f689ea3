"""What `redact` asks for, done to a row before anything of it is written or shown to a template."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sysml_run.errors import DataError
from sysml_run.recipe import Redaction
from sysml_run.redaction import problem


class Redactor:
    """The patterns of one dataset, compiled once; `counts` has the replacements of each, by its place in the list."""

    def __init__(self, redactions: Sequence[Redaction], number: int) -> None:
        for place, each in enumerate(redactions):
            wrong = problem(each.pattern)
            if wrong is not None:
                raise DataError(f"datasets.{number}.redact.{place}.pattern: {wrong}")
        self.pairs = [(re.compile(each.pattern), each.replace) for each in redactions]
        self.counts: Counter[int] = Counter()

    def __call__(self, value: Any) -> Any:
        """The value with every text in it redacted; keys and everything that is not text stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self(inner) for inner in value]
        return value

    def facts(self, number: int) -> list[dict[str, Any]]:
        """How often each pattern of dataset `number` was replaced, for the report."""
        found = enumerate(self.pairs)
        return [{"dataset": number, "pattern": p.pattern, "replaced": self.counts[at]} for at, (p, _) in found]

    def text(self, text: str) -> str:
        for place, (pattern, replace) in enumerate(self.pairs):
            text, count = pattern.subn(lambda _, word=replace: word, text)  # type: ignore[misc]
            if count:
                self.counts[place] += count
        return text
