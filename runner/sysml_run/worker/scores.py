"""Generated answers -> the metrics a recipe asks for; shares are 0..1."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sysml_run.recipe import FieldMetric

Answer = Mapping[str, Any] | None


def scores(
    metrics: Sequence[str | FieldMetric], given: Sequence[str], wanted: Sequence[str]
) -> dict[str, float | None]:
    """Each asked metric by name (`severity.accuracy`); accuracy brings the majority class's share along."""
    read, expected = [parse(text) for text in given], [parse(text) for text in wanted]
    found: dict[str, float | None] = {}
    for metric in metrics:
        if metric == "json_valid":
            found[metric] = share([answer is not None for answer in read])
        elif metric == "exact_match":
            pairs = zip(given, wanted, strict=True)
            found[metric] = share([one.strip() == other.strip() for one, other in pairs])
        elif isinstance(metric, FieldMetric):
            found |= field_scores(metric, read, expected)
    return found


def field_scores(metric: FieldMetric, given: Sequence[Answer], wanted: Sequence[Answer]) -> dict[str, float | None]:
    """One field's metric; an answer without the field is wrong for labels and left out of a mean error."""
    name, kind = metric.field, metric.metric
    pairs = [(value(answer, name), value(right, name)) for answer, right in zip(given, wanted, strict=True)]
    pairs = [pair for pair in pairs if pair[1] is not None]
    if kind == "accuracy":
        counts = Counter(right for _, right in pairs)
        majority = counts.most_common(1)[0][1] / len(pairs) if pairs else None
        return {f"{name}.accuracy": share([one == right for one, right in pairs]), f"{name}.majority": majority}
    shapes: Mapping[str, Callable[[Sequence[tuple[Any, Any]]], float | None]] = {"f1_macro": f1_macro, "mae": mae}
    return {f"{name}.{kind}": shapes[kind](pairs)}


def f1_macro(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    """Unweighted mean over the classes of the right answers of 2TP / (2TP + FP + FN)."""
    classes = dict.fromkeys(right for _, right in pairs)  # in the rows' order, so that the sum is the same every time
    each = []
    for name in classes:
        true = sum(one == right == name for one, right in pairs)
        wrong = sum((one == name) != (right == name) for one, right in pairs)
        each.append(2 * true / (2 * true + wrong))
    return sum(each) / len(each) if each else None


def mae(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    """Mean absolute error over the answers that hold a finite number; None when none does."""
    errors = [abs(one - right) for one, right in pairs if number(one) and number(right)]
    return sum(errors) / len(errors) if errors else None


def number(found: Any) -> bool:
    """Whether it is a number that arithmetic can use: JSON also yields NaN, Infinity and integers beyond any float."""
    try:
        return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    except OverflowError:
        return False


def parse(text: str) -> Answer:
    """The answer as a JSON object, or None."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def value(answer: Answer, name: str) -> Any:
    """A field's value; lists and objects are compared as their JSON text."""
    found = answer.get(name) if answer else None
    return json.dumps(found, sort_keys=True) if isinstance(found, list | dict) else found


def share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
