"""The data report: what was read, what was left out and why, lengths, copies across splits, balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .encode import Encoded
from .intake import Intake
from .store import SPLITS

BINS = 24


def make(intake: Intake, encoded: Encoded, sides: Sequence[str]) -> dict[str, Any]:
    """The whole report; JSON values only. `rows.read` = `rows.kept` + all of `rows.dropped`."""
    numbers = {name: [i for i, side in enumerate(sides) if side == name] for name in SPLITS}
    report: dict[str, Any] = {
        "rows": {"read": intake.read, "kept": len(sides), "dropped": dict(intake.dropped + encoded.dropped)},
        "files": intake.files,
        "splits": {name: facts(encoded, rows) for name, rows in numbers.items()},
        "lengths": histograms({name: [encoded.lengths[i] for i in rows] for name, rows in numbers.items()}),
        "duplicates": {kind: copies(keys(encoded, kind, range(len(sides)))) for kind in ("exact", "masked")},
        "leakage": {name: leakage(encoded, numbers["train"], numbers[name]) for name in ("validation", "test")},
        "balance": balance(intake.fields, encoded, sides),
        "end_tokens": dict(encoded.end_tokens),
        "tokenized_apart": encoded.tokenized_apart,
        "special_in_text": encoded.special_in_text,
        "example": encoded.example,
    }
    report["warnings"] = list(warnings(report, encoded.refusal))
    return report


def facts(encoded: Encoded, rows: Sequence[int]) -> dict[str, Any]:
    """Token counts of one split; shares are 0..1."""
    lengths = sorted(encoded.lengths[i] for i in rows)
    total, prompt = sum(lengths), sum(encoded.prompt_lens[i] for i in rows)
    return {
        "rows": len(rows),
        "tokens": {"p50": rank(lengths, 0.5), "p95": rank(lengths, 0.95), "max": rank(lengths, 1.0), "total": total},
        "truncated": sum(encoded.truncated[i] for i in rows),
        "loss_tokens": sum(encoded.loss_tokens[i] for i in rows),
        "prompt_share": round(prompt / total, 4) if total else 0.0,
        "answer_share": round(1 - prompt / total, 4) if total else 0.0,
    }


def rank(ordered: Sequence[int], share: float) -> int:
    """Percentile by nearest rank; 0 of nothing."""
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)] if ordered else 0


def histograms(lengths: dict[str, list[int]]) -> dict[str, Any]:
    """Rows by length, in at most 24 bins that all splits share."""
    longest = max((max(values, default=0) for values in lengths.values()), default=0)
    width = max(1, -(-(longest + 1) // BINS))
    edges = [width * i for i in range(longest // width + 2)]
    found = {name: Counter(value // width for value in values) for name, values in lengths.items()}
    return {name: {"edges": edges, "counts": [bins[i] for i in range(len(edges) - 1)]} for name, bins in found.items()}


def keys(encoded: Encoded, kind: str, rows: Iterable[int]) -> list[bytes]:
    return [getattr(encoded.records[i], kind) for i in rows]


def copies(found: list[bytes]) -> int:
    """Rows that repeat an earlier one."""
    return len(found) - len(set(found))


def leakage(encoded: Encoded, train: Sequence[int], held: Sequence[int]) -> dict[str, Any]:
    """Held-out rows whose text stands in training too: word for word, and with numbers and hex masked."""
    result: dict[str, Any] = {}
    for kind in ("exact", "masked"):
        seen = set(keys(encoded, kind, train))
        result[kind] = sum(key in seen for key in keys(encoded, kind, held))
        result[f"{kind}_share"] = round(result[kind] / len(held), 4) if held else 0.0
    return result


def balance(fields: Sequence[str], encoded: Encoded, sides: Sequence[str]) -> dict[str, Any]:
    """Rows of each value of each field, split by split; a field that no row has is left out."""
    found: dict[str, Any] = {}
    for column, name in enumerate(fields):
        counts: dict[str, Counter[str]] = {}
        for record, side in zip(encoded.records, sides, strict=True):
            value = record.values[column]
            if value is not None:
                counts.setdefault(value, Counter())[side] += 1
        if counts:
            order = sorted(counts, key=lambda value: -counts[value].total())
            found[name] = {value: {split: counts[value][split] for split in SPLITS} for value in order}
    return found


def warnings(report: dict[str, Any], refusal: str | None) -> Iterable[str]:
    """What a reader of the report should not miss."""
    kept = report["rows"]["kept"]
    cut = sum(split["truncated"] for split in report["splits"].values())
    if cut > kept / 10:
        yield f"{cut} of {kept} rows are cut to prompt.sequence_len"
    for name, found in report["leakage"].items():
        if found["masked"] and report["splits"][name]["rows"]:
            share = f"{found['masked_share']:.0%}"
            yield f"{share} of {name} rows stand in training but for numbers and hex; group_by: masked_text parts them"
    for field, values in report["balance"].items():
        if len(values) == 1:
            yield f"every row has the same {field}: {next(iter(values))}"
    if report["special_in_text"]:
        yield f"{report['special_in_text']} rows spell special tokens in their text, which the tokenizer reads as such"
    if report["tokenized_apart"]:
        yield f"{report['tokenized_apart']} rows had prompt and answer tokenized apart: a token would join them"
    if refusal:
        yield f"the template refused rows; the first: {refusal}"
