"""The keys and values of a search space must be those of a recipe."""

from __future__ import annotations

from typing import Any

from sysml_run.position import dotted, pointer
from sysml_run.recipe import Recipe
from sysml_run.schema import Node, branch, every, find
from sysml_run.validate import KEYWORDS
from sysml_run.wording import closest, flow, refused, unexpected

from .finding import Finding, Findings


def search_space(recipe: Recipe) -> Findings:
    if recipe.search is not None and not recipe.search.space:
        hint = "write search.space: {optimizer.learning_rate: [1e-4, 2e-4]}"
        yield Finding("search.space", "there is no key to search over", hint, at_key=True)


def search_keys(recipe: Recipe) -> Findings:
    for key in recipe.search.space if recipe.search else ():
        if not _nodes(key):
            yield Finding(
                dotted(("search", "space", key)), f"a recipe has no key {flow(key)}", _meant(key), at_key=True
            )


def search_values(recipe: Recipe) -> Findings:
    """A value that no branch of the key takes; inside sections it is left to the trial's own check."""
    for key, values in (recipe.search.space if recipe.search else {}).items():
        for at, value in enumerate(values):
            wrong = [_refusal(node, _plain(value)) for node in _nodes(key)]
            if wrong and None not in wrong:
                message, hint = wrong[0] or ("", None)
                yield Finding(dotted(("search", "space", key, at)), f"{key}: {message}", hint)


def search_metric(recipe: Recipe) -> Findings:
    if recipe.search is None:
        return
    asked = recipe.evaluation.metrics
    answers = [metric if isinstance(metric, str) else f"{metric.field}.{metric.metric}" for metric in asked]
    measured = ["eval_loss", *answers]
    if recipe.search.metric not in measured:
        near = closest(recipe.search.metric, measured)
        hint = f"did you mean {near}?" if near else f"measured here: {', '.join(measured)}"
        yield Finding("search.metric", f"{recipe.search.metric} is not measured", hint)


def _nodes(key: str) -> tuple[Node, ...]:
    try:
        return find(pointer(key)) if key else ()
    except ValueError:
        return ()


def _meant(key: str) -> str:
    known = list(dict.fromkeys(dotted(path) for path, _ in every()))
    ends = [name for name in known if name.endswith(f".{key}")]
    near = ends[0] if ends and key else closest(key, known)
    return f"did you mean {near}?" if near else "keys are written with their sections: optimizer.learning_rate"


def _refusal(node: Node, value: Any) -> tuple[str, str | None] | None:
    """Message and hint where `node` does not take the value."""
    chosen = branch(node, value)
    if chosen is None:
        return unexpected(node, value)
    for keyword, (kind, holds) in KEYWORDS.items():
        if keyword in chosen and isinstance(value, kind) and not holds(value, chosen[keyword]):
            return refused(keyword, node, chosen, value)
    items = [_refusal(chosen["items"], item) for item in value] if isinstance(value, list) and "items" in chosen else []
    return next((item for item in items if item is not None), None)


def _plain(value: Any) -> Any:
    """Lists again where the typed recipe holds tuples."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
