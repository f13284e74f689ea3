"""The data report: what was read, what was left out and why, lengths, copies across splits, balance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sysml_run.recipe import Recipe

from . import named
from .chunks import Encoded
from .columns import Columns, Ints, same
from .intake import CHOSEN, Found, counted
from .split import SIDES, Sides

BINS = 24
KINDS = ("exact", "masked")


def make(
    recipe: Recipe, found: Found, encoded: Encoded, columns: Columns, sides: Sides, times: Ints, tokenizer: Path
) -> dict[str, Any]:
    """The whole report; JSON values only. `rows.read` = `rows.kept` + all of `rows.dropped`.

    Counts of a split are of rows as they are trained on: a row that is drawn twice counts twice. `tokenizer` is the
    folder of its files.
    """
    entries = {name: np.repeat(rows, times[rows]) for name, rows in numbers(sides, sides >= 0).items()}
    kept = numbers(sides, times > 0)
    digests = {kind: same(getattr(columns, kind)) for kind in KINDS}
    report: dict[str, Any] = {
        "template": {"name": named.title(recipe.prompt.template, tokenizer)},
        "rows": {"read": found.read, "kept": int((times > 0).sum()), "dropped": dict(sorted(found.dropped.items()))},
        "datasets": found.datasets,
        "files": found.files,
        "splits": {name: facts(encoded, rows) for name, rows in entries.items()},
        "lengths": histograms({name: encoded.array("lengths")[rows] for name, rows in entries.items()}),
        "duplicates": {kind: copies(names[times > 0]) for kind, names in digests.items()},
        "leakage": leakage(digests, kept) | {"random_split": leakage(digests, at_random(recipe.seed, kept))},
        "balance": balance(found, columns, entries),
        "weights": weights(recipe, columns, sides, times),
        "where": found.where,
        "routes": found.routes,
        "redacted": found.redacted,
        "refs": dict(found.refs),
        "end_tokens": dict(encoded.total("end_tokens")),
        "tokenized_apart": encoded.count("tokenized_apart"),
        "bos_added": encoded.count("bos_added"),
        "special_in_text": encoded.count("special_in_text"),
        "example": encoded.first("example"),
    }
    report["warnings"] = list(warnings(report, encoded.first("refusal")))
    return report


def lost(datasets: list[dict[str, Any]]) -> Iterable[str]:
    """Datasets of which no row is left, or fewer than are lost."""
    for each in datasets:
        gone = sum(count for reason, count in each["dropped"].items() if reason not in CHOSEN)
        if not each["kept"] or gone > each["kept"]:
            few = "no row is" if not each["kept"] else f"only {each['kept']} rows are"
            yield f"datasets.{each['dataset']}: {few} left of {each['read']}: {counted(each['dropped'])}"


def numbers(sides: Sides, of: NDArray[np.bool_]) -> dict[str, Ints]:
    """Numbers of the rows of each side."""
    return {name: np.flatnonzero(of & (sides == code)) for code, name in enumerate(SIDES)}


def facts(encoded: Encoded, rows: Ints) -> dict[str, Any]:
    """Token counts of one split; shares are 0..1."""
    lengths, loss, cut = (encoded.array(name)[rows] for name in ("lengths", "loss_tokens", "cut"))
    total, prompt = int(lengths.sum()), int(encoded.array("prompt_lens")[rows].sum())
    truncated = int((cut > 0).sum())
    return {
        "rows": len(rows),
        "tokens": ranks(lengths) | {"total": total},
        "truncated": truncated,
        "truncated_share": share(truncated, len(rows)),
        "cut_tokens": int(cut.sum()),
        "loss_tokens": int(loss.sum()),
        "loss": ranks(loss),
        "prompt_share": share(prompt, total),
        "answer_share": round(1 - prompt / total, 4) if total else 0.0,
    }


def share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def ranks(values: Ints) -> dict[str, int]:
    """Percentiles by nearest rank; 0 of nothing."""
    ordered = np.sort(values)
    return {name: rank(ordered, part) for name, part in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def rank(ordered: Ints, part: float) -> int:
    return int(ordered[max(0, -int(-len(ordered) * part // 1) - 1)]) if len(ordered) else 0


def histograms(lengths: dict[str, Ints]) -> dict[str, Any]:
    """Rows by length, in at most 24 bins that all splits share."""
    longest = max(int(values.max(initial=0)) for values in lengths.values())
    width = max(1, -(-(longest + 1) // BINS))
    count = longest // width + 1
    edges = [width * i for i in range(count + 1)]
    return {
        name: {"edges": edges, "counts": np.bincount(values // width, minlength=count).tolist()}
        for name, values in lengths.items()
    }


def copies(names: Ints) -> int:
    """Rows that repeat an earlier one."""
    return len(names) - len(np.unique(names))


def leakage(digests: dict[str, Ints], rows: dict[str, Ints]) -> dict[str, dict[str, Any]]:
    """Held-out rows whose text stands in training too: word for word, and with numbers and hex masked."""
    result: dict[str, dict[str, Any]] = {}
    for name in SIDES[1:]:
        found = {kind: int(np.isin(of[rows[name]], of[rows["train"]]).sum()) for kind, of in digests.items()}
        result[name] = found | {f"{kind}_share": share(count, len(rows[name])) for kind, count in found.items()}
    return result


def at_random(seed: int, rows: dict[str, Ints]) -> dict[str, Ints]:
    """Sides of the same sizes, drawn without regard to content."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(np.concatenate(list(rows.values())))
    parts = np.split(order, np.cumsum([len(each) for each in rows.values()])[:-1])
    return dict(zip(rows, parts, strict=True))


def balance(found: Found, columns: Columns, entries: dict[str, Ints]) -> dict[str, Any]:
    """Rows of each value of each field, split by split; a field that no row has is left out."""
    result: dict[str, Any] = {}
    for column, (field, names) in enumerate(found.names.items()):
        codes = columns.values[:, column]
        counts = {
            name: np.bincount(codes[rows][codes[rows] >= 0], minlength=len(names)) for name, rows in entries.items()
        }
        total = sum(counts.values(), np.zeros(len(names), np.int64))
        order = [code for code in np.argsort(-total, kind="stable").tolist() if total[code]]
        if order:
            result[field] = {names[code]: {name: int(each[code]) for name, each in counts.items()} for code in order}
    return result


def weights(recipe: Recipe, columns: Columns, sides: Sides, times: Ints) -> list[dict[str, Any]]:
    """Of each dataset whose weight is not 1: training rows, and how many stand there once they are drawn."""
    return [
        {"dataset": number, "weight": dataset.weight, "rows": int(mine.sum()), "drawn": int(times[mine].sum())}
        for number, dataset in enumerate(recipe.datasets)
        if dataset.weight != 1
        for mine in [(columns.dataset == number) & (sides == 0)]
    ]


def warnings(report: dict[str, Any], refusal: str | None) -> Iterable[str]:
    """What a reader of the report should not miss."""
    drawn = sum(split["rows"] for split in report["splits"].values())
    yield from lost(report["datasets"])
    cut = sum(split["truncated"] for split in report["splits"].values())
    if cut > drawn / 10:
        yield f"{cut} of {drawn} rows are cut to prompt.sequence_len"
    for name in SIDES[1:]:
        found = report["leakage"][name]
        if found["masked"] and report["splits"][name]["rows"]:
            part = f"{found['masked_share']:.0%}"
            yield f"{part} of {name} rows stand in training but for numbers and hex; group_by: masked_text parts them"
    for field, values in report["balance"].items():
        if len(values) == 1:
            yield f"every row has the same {field}: {next(iter(values))}"
    refs = report["refs"]
    if refs.get("missing"):
        total = sum(refs.values())
        yield f"{refs['missing']} of {total} refs of correlations name findings that are not in their batch"
    if report["special_in_text"]:
        yield f"{report['special_in_text']} rows spell special tokens in their text, which the tokenizer reads as such"
    if report["tokenized_apart"]:
        yield f"{report['tokenized_apart']} rows had prompt and answer tokenized apart: a token would join them"
    if refusal:
        yield f"the template refused rows; the first: {refusal}"
