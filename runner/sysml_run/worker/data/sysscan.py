"""sys-scan's own layouts: batches of findings and correlations, plain or packed, and reports of a scanner."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .documents import unpack_hex

# What says or copies the answer, or is bookkeeping around it. `id` is here because real ids spell it (proc_mal_…,
# dns_7_high), `tags` because of high_priority and the like. Keys that start with an underscore are bookkeeping too.
ANSWER_FIELDS = {
    *("id", "severity", "risk_score", "base_severity_score", "risk_total", "severity_source", "tags", "risk_subscores"),
    *("probability_actionable", "rationale", "allowlist_reason", "host_role_rationale", "metric_drift"),
    *("correlation_refs", "correlation_type", "correlation_strength", "graph_degree", "cluster_id"),
}
JOINED_FIELDS = ANSWER_FIELDS | {"findings", "missing_refs", "timestamp"}
TYPE_IN_METADATA = {
    "correlation_reason",
    "kb_refs",
}  # of a correlation: they name its type, and each type has one score
HOST_FIELDS = ("os_id", "os_version", "kernel", "arch")
SCORES = ("risk_score", "base_severity_score", "risk_total")
SHOWN = 24  # findings of a correlation that a prompt shows; real ones refer to as many as 219
PACKINGS = 3

Row = dict[str, Any]


def observation(finding: Row) -> Row:
    """The finding without anything that carries the answer; safe to print whole into a prompt."""
    return {key: value for key, value in finding.items() if key not in ANSWER_FIELDS and not key.startswith("_")}


def correlated(row: Row) -> Row:
    """What templates see of a correlation: itself and its riskiest findings, both without what carries the answer."""
    view = {key: value for key, value in row.items() if key not in JOINED_FIELDS and not key.startswith("_")}
    if isinstance(view.get("metadata"), dict):
        view["metadata"] = {key: value for key, value in view["metadata"].items() if key not in TYPE_IN_METADATA}
    shown = [observation(finding) for finding in row.get("findings", ())[:SHOWN]]
    return {"correlation": view, "observations": shown}


def reported(row: Row) -> Row:
    """What templates see of a scanner's finding: the observation, and the few facts of the host that matter to it.

    Its `id` is shown: a real scanner puts there the path or the module that the finding is about.
    """
    named = {"id": row["id"]} if "id" in row else {}
    finding = named | {key: value for key, value in observation(row).items() if key != "meta"}
    meta = row.get("meta", {})
    return {"finding": finding, "host": {key: meta[key] for key in HOST_FIELDS if key in meta}}


def opened(value: Any, name: str, packings: int = PACKINGS) -> Iterator[Any]:
    """The documents in a value: the items of a list, and what packed ones hold. An item that is no object comes as is.

    ValueError where hex or gzip are damaged, DataError for a bomb; `name` is for messages.
    """
    if isinstance(value, list):
        for item in value:
            yield from opened(item, name, packings) if isinstance(item, dict) else [item]
    elif isinstance(value, dict) and value.get("compressed") is True and isinstance(value.get("data"), str):
        if not packings:
            raise ValueError(f"packed more than {PACKINGS} times over")
        yield from opened(unpack_hex(value["data"], name), name, packings - 1)
    elif isinstance(value, dict):
        yield value


def body(document: Row) -> Row:
    """The part of a batch that holds findings and correlations."""
    return document["data"] if isinstance(document.get("data"), dict) else document


def findings(value: Any, name: str) -> Iterator[Any]:
    """Findings of a batch, of a list of findings or batches, or the finding itself; nothing where there are none.

    Category and severity of the nesting become fields where the finding has none.
    """
    for document in opened(value, name):
        if not isinstance(document, dict) or "title" in document:
            yield document
        else:
            yield from nested(body(document).get("findings"), {})


def nested(value: Any, place: dict[str, str]) -> Iterator[Any]:
    """Walk {category: {severity: [finding]}}, or less of it, filling in what the keys say."""
    if isinstance(value, list):
        yield from (fill(item, place) for item in value)
        return
    if not isinstance(value, dict) and not place:
        return  # a generation report has their number there
    left = [key for key in ("category", "severity") if key not in place]
    if not isinstance(value, dict) or not left:
        raise ValueError("findings are neither a list nor nested by category and severity")
    for key, inner in value.items():
        yield from nested(inner, place | {left[0]: key})


def fill(finding: Any, place: dict[str, str]) -> Any:
    """The finding, with what the nesting says added behind its own fields."""
    return finding | {k: v for k, v in place.items() if k not in finding} if isinstance(finding, dict) else finding


def correlations(value: Any, name: str) -> Iterator[Any]:
    """Correlations of a batch joined to its findings; a lone one to those it carries itself.

    The index of findings lives as long as their batch does, so refs into another batch are counted as missing.
    """
    for document in opened(value, name):
        if not isinstance(document, dict):
            yield document
        elif "correlation_type" in document:
            yield joined(document, by_id(document.get("findings")))
        elif isinstance(body(document).get("correlations"), list):
            known = by_id(body(document).get("findings"))
            yield from (joined(item, known) for item in body(document)["correlations"])


def by_id(found: Any) -> dict[str, Row]:
    return {
        item["id"]: item for item in nested(found, {}) if isinstance(item, dict) and isinstance(item.get("id"), str)
    }


def joined(correlation: Any, known: dict[str, Row]) -> Any:
    """The correlation with `findings`, the riskiest first, and `missing_refs`, how many of its refs are not known."""
    if not isinstance(correlation, dict) or not isinstance(correlation.get("correlation_refs"), list):
        return correlation
    refs = list(dict.fromkeys(ref for ref in correlation["correlation_refs"] if isinstance(ref, str)))
    found = sorted((known[ref] for ref in refs if ref in known), key=risk, reverse=True)
    return correlation | {"findings": found, "missing_refs": len(refs) - len(found)}


def risk(finding: Row) -> float:
    """The score for an order; below every score where there is none. Real reports write it as text."""
    for name in SCORES:
        try:
            score = float(finding[name])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(score):
            return score
    return -1.0


def report(value: Any, name: str) -> Iterator[Any]:
    """A row a finding of a scanner's report, with `scanner`, the report's `meta`, and `risk_score` where it had none.

    A row a report would be hundreds of findings, far beyond what a model reads at once.
    """
    for document in opened(value, name):
        if not isinstance(document, dict):
            yield document
        for result in document["results"] if isinstance(document.get("results"), list) else ():
            if isinstance(result, dict) and isinstance(result.get("findings"), list):
                meta = document["meta"] if isinstance(document.get("meta"), dict) else {}
                yield from (of_report(item, result.get("scanner"), meta) for item in result["findings"])


def of_report(finding: Any, scanner: Any, meta: Row) -> Any:
    if not isinstance(finding, dict):
        return finding
    score = next((finding[name] for name in SCORES if finding.get(name) is not None), None)
    added = {"scanner": scanner, "meta": meta} | ({} if score is None else {"risk_score": score})
    return finding | {key: value for key, value in added.items() if finding.get(key) is None}
