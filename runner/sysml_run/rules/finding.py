"""What a rule says, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sysml_run.errors import Severity
from sysml_run.recipe import Recipe


@dataclass(frozen=True)
class Finding:
    """What a rule has to say of `pointer` (dotted); `later` ones are errors only when the recipe is to run here.

    It is shown at the value of `pointer`, with `at_key` at the key, and at `or_at` where the recipe leaves it out; with
    `written` nothing is said of a key that the recipe leaves out, which the plan then settles.
    """

    pointer: str
    message: str
    hint: str | None = None
    severity: Severity = "error"
    later: bool = False
    at_key: bool = False
    or_at: str = ""
    written: bool = False


Findings = Iterator[Finding]
Rule = Callable[[Recipe], Findings]
