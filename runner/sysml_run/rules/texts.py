"""Texts with a grammar of their own: Jinja templates and expressions, regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sysml_run import jinjatext, redaction
from sysml_run.recipe import Recipe

from .finding import Finding, Findings

FIELD = re.compile(r"[\w-]+(\.[\w-]+)*")  # what names a field of the row, and is no expression
MASKED = "masked_text"
KIND = {True: "expression", False: "template"}
HINT = {True: "for example severity == 'high'", False: 'for example "{{ question }}"'}


def redactions(recipe: Recipe) -> Findings:
    for at, dataset in enumerate(recipe.datasets):
        for place, each in enumerate(dataset.redact):
            wrong = redaction.problem(each.pattern)
            if wrong:
                yield Finding(f"datasets.{at}.redact.{place}.pattern", wrong, "it is written in Python's syntax")


def balanced(recipe: Recipe) -> Findings:
    """What can be told without Jinja, which has the last word when rows are prepared."""
    for at, text, expression in _texts(recipe):
        wrong = jinjatext.slip(text, expression=expression)
        if wrong:
            yield Finding(at, f"no Jinja {KIND[expression]}: {wrong}", HINT[expression])


def _texts(recipe: Recipe) -> Iterator[tuple[str, str, bool]]:
    """Pointer, text, and whether it is an expression."""
    for at, dataset in enumerate(recipe.datasets):
        expressions = {"where": dataset.where, "route.when": dataset.route.when if dataset.route else None}
        yield from ((f"datasets.{at}.{key}", text, True) for key, text in expressions.items() if text is not None)
        templates = {"system": dataset.map.system, "prompt": dataset.map.prompt, "completion": dataset.map.completion}
        yield from ((f"datasets.{at}.map.{key}", text, False) for key, text in templates.items() if text)
    split = recipe.split
    keys = {"group_by": split.group_by, "stratify_by": split.stratify_by}
    keys |= {"balance.by": split.balance.by} if split.balance else {}
    written = {key: text for key, text in keys.items() if text not in (None, MASKED)}
    yield from ((f"split.{key}", str(text), True) for key, text in written.items() if not FIELD.fullmatch(str(text)))
    yield "prompt.template", recipe.prompt.template, False
