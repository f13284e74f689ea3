"""sys-scan's own layout: batches (plain or hex-encoded gzip inside JSON) and the findings nested in them."""

from __future__ import annotations

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


def observation(finding: dict[str, Any]) -> dict[str, Any]:
    """The finding without anything that carries the answer; safe to print whole into a prompt."""
    return {key: value for key, value in finding.items() if key not in ANSWER_FIELDS and not key.startswith("_")}


def findings(value: Any, name: str) -> Iterator[Any]:
    """Findings of a batch, of a list of findings or batches, or the finding itself; nothing where there are none.

    Category and severity of the nesting become fields where the finding has none. `name` is for messages.
    """
    if isinstance(value, list):
        for item in value:
            yield from findings(item, name) if isinstance(item, dict) else [item]
    elif isinstance(value, dict):
        yield from findings_of(value, name)


def findings_of(value: dict[str, Any], name: str) -> Iterator[Any]:
    if value.get("compressed") is True and isinstance(value.get("data"), str):
        yield from findings(unpack_hex(value["data"], name), name)
    elif "title" in value:
        yield value
    else:
        inner = value["data"] if isinstance(value.get("data"), dict) else value
        if isinstance(inner.get("findings"), dict | list):  # a generation report has their number there
            yield from nested(inner["findings"], {})


def nested(value: Any, place: dict[str, str]) -> Iterator[Any]:
    """Walk {category: {severity: [finding]}}, or less of it, filling in what the keys say."""
    if isinstance(value, list):
        yield from (fill(item, place) for item in value)
        return
    left = [key for key in ("category", "severity") if key not in place]
    if not isinstance(value, dict) or not left:
        raise ValueError("findings are neither a list nor nested by category and severity")
    for key, inner in value.items():
        yield from nested(inner, place | {left[0]: key})


def fill(finding: Any, place: dict[str, str]) -> Any:
    """The finding, with what the nesting says added behind its own fields."""
    return finding | {k: v for k, v in place.items() if k not in finding} if isinstance(finding, dict) else finding
