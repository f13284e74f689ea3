"""Generated answers -> the metrics a recipe asks for; shares are 0..1."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sysml_run.recipe import FieldMetric

from .toolcalls import calls

Answer = Mapping[str, Any] | None
Texts = Sequence[str]
Score = Callable[[Texts, Texts], float | None]
WORD = re.compile(r"[^\W_]+")
CLASSES = ("f1_macro", "f1_micro")  # metrics beside which every class is counted


def scores(
    metrics: Sequence[str | FieldMetric], given: Texts, wanted: Texts, schema: str | None = None
) -> dict[str, float | None]:
    """Each asked metric by name (`severity.accuracy`); accuracy brings the majority class's share along.

    `schema` is the file that `schema_valid` goes by.
    """
    whole: Mapping[str, Score] = {**WHOLE, "schema_valid": partial(schema_valid, schema)}
    read, expected = [parse(text) for text in given], [parse(text) for text in wanted]
    found: dict[str, float | None] = {}
    for metric in metrics:
        if isinstance(metric, FieldMetric):
            found |= field_scores(metric, read, expected)
        else:
            found[metric] = whole[metric](given, wanted)
    return found


def json_valid(given: Texts, wanted: Texts) -> float | None:
    return share([parse(text) is not None for text in given])


def schema_valid(schema: str | None, given: Texts, wanted: Texts) -> float | None:
    """The share of the answers that are JSON of any kind, and keep to the schema."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    read = json.loads(Path(schema or "").read_text(encoding="utf-8"))
    nothing_else: Any = Registry()  # without it the addresses that a schema refers to would be asked for
    checker = validator_for(read, default=Draft202012Validator)(read, registry=nothing_else)
    return share([_keeps(checker, text) for text in given])


def _keeps(checker: Any, text: str) -> bool:
    try:
        return bool(checker.is_valid(strict(text)))
    except (ValueError, RecursionError):
        return False


def exact_match(given: Texts, wanted: Texts) -> float | None:
    return share([one.strip() == other.strip() for one, other in zip(given, wanted, strict=True)])


def field_accuracy(given: Texts, wanted: Texts) -> float | None:
    """Of all fields of the right answers, those that the answers have alike."""
    pairs = [(parse(one), parse(other)) for one, other in zip(given, wanted, strict=True)]
    return share([value(one, name) == value(other, name) for one, other in pairs for name in other or ()])


def rouge_l(given: Texts, wanted: Texts) -> float | None:
    """Mean F-measure of ROUGE-L (Lin 2004); words are runs of letters and digits of any script, in lower case."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    each = [scorer.score(other, one)["rougeL"].fmeasure for one, other in zip(given, wanted, strict=True)]
    return sum(each) / len(each) if each else None


class Words:
    """The library's own words are of ASCII alone; of such texts these are the same."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


def tool_calls(given: Texts, wanted: Texts) -> float | None:
    """Of the rows whose right answer calls tools, the share that makes the same calls in the same order."""
    pairs = [(calls(one), calls(other)) for one, other in zip(given, wanted, strict=True)]
    return share([one == other for one, other in pairs if other])


WHOLE: Mapping[str, Score] = {
    "json_valid": json_valid,
    "exact_match": exact_match,
    "field_accuracy": field_accuracy,
    "rouge_l": rouge_l,
    "tool_calls": tool_calls,
}


def field_scores(metric: FieldMetric, given: Sequence[Answer], wanted: Sequence[Answer]) -> dict[str, float | None]:
    """One field's metric; an answer without the field is wrong for labels and left out of a mean error."""
    name, kind = metric.field, metric.metric
    pairs = labels(name, given, wanted)
    if kind == "accuracy":
        counts = Counter(right for _, right in pairs)
        majority = counts.most_common(1)[0][1] / len(pairs) if pairs else None
        return {f"{name}.accuracy": share([one == right for one, right in pairs]), f"{name}.majority": majority}
    shapes = {"f1_macro": f1_macro, "f1_micro": f1_micro, "mae": mae}
    return {f"{name}.{kind}": shapes[kind](pairs)}


def classes(
    metrics: Sequence[str | FieldMetric], given: Texts, wanted: Texts
) -> dict[str, dict[str, dict[str, float | None]]]:
    """By field and right value: `rows`, `precision` (None where no answer says it), `recall` and `f1`."""
    fields = dict.fromkeys(one.field for one in metrics if isinstance(one, FieldMetric) and one.metric in CLASSES)
    read, expected = [parse(text) for text in given], [parse(text) for text in wanted]
    return {name: by_class(labels(name, read, expected)) for name in fields}


def by_class(pairs: Sequence[tuple[Any, Any]]) -> dict[str, dict[str, float | None]]:
    """The commonest class first."""
    found: dict[str, dict[str, float | None]] = {}
    for name, rows in Counter(right for _, right in pairs).most_common():
        true, false, missed = hits(name, pairs)
        said = true + false
        f1 = 2 * true / (2 * true + false + missed)
        shown = name if isinstance(name, str) else json.dumps(name)
        found[shown] = {"rows": rows, "precision": true / said if said else None, "recall": true / rows, "f1": f1}
    return found


def labels(name: str, given: Sequence[Answer], wanted: Sequence[Answer]) -> list[tuple[Any, Any]]:
    """What the answers and the right answers have in a field, where the right one has it."""
    pairs = [(value(answer, name), value(right, name)) for answer, right in zip(given, wanted, strict=True)]
    return [pair for pair in pairs if pair[1] is not None]


def hits(name: Any, pairs: Sequence[tuple[Any, Any]]) -> tuple[int, int, int]:
    """Of one class: rows that are it and were said to be, those that were only said to be, and those that only are."""
    true = sum(one == right == name for one, right in pairs)
    return true, sum(one == name for one, _ in pairs) - true, sum(right == name for _, right in pairs) - true


def f1_macro(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    """Unweighted mean over the classes of the right answers of 2TP / (2TP + FP + FN)."""
    each = []
    for name in dict.fromkeys(right for _, right in pairs):  # in the rows' order, so that the sum is always the same
        true, false, missed = hits(name, pairs)
        each.append(2 * true / (2 * true + false + missed))
    return sum(each) / len(each) if each else None


def f1_micro(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    """2TP / (2TP + FP + FN) over all rows: a wrong answer is one FP and one FN, a missing one an FN alone."""
    true, said = sum(one == right for one, right in pairs), sum(one is not None for one, _ in pairs)
    return 2 * true / (said + len(pairs)) if pairs else None


def mae(pairs: Sequence[tuple[Any, Any]]) -> float | None:
    """Mean absolute error over the answers that hold a finite number; None when none does."""
    errors = [abs(one - right) for one, right in pairs if number(one) and number(right)]
    return sum(errors) / len(errors) if errors else None


def number(found: Any) -> bool:
    """Whether it is a number that arithmetic can use: JSON also yields numbers and integers beyond any float."""
    try:
        return isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    except OverflowError:
        return False


def parse(text: str) -> Answer:
    """The answer as a JSON object, or None."""
    try:
        read = strict(text)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def strict(text: str) -> Any:
    """As JSON is defined: Python's reader takes NaN and Infinity too. Raises ValueError."""
    return json.loads(text, parse_constant=_no_json)


def _no_json(name: str) -> None:
    raise ValueError(name)


def value(answer: Answer, name: str) -> Any:
    """A field's value; lists and objects are compared as their JSON text."""
    found = answer.get(name) if answer else None
    return json.dumps(found, sort_keys=True) if isinstance(found, list | dict) else found


def share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
