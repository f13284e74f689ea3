"""sys-scan's layout: where findings are, and what of one is observation."""

import gzip
import json
from typing import Any

import pytest

from sysml_run.worker.data import sysscan

FINDING = {"title": "t", "description": "d", "severity": "high", "risk_score": 70.0}
NESTED = {"network": {"high": [FINDING], "low": [{"title": "u"}]}}


def wrapped(value: Any) -> dict[str, Any]:
    data = json.dumps(value).encode()
    packed = gzip.compress(data)
    sizes = {"original_size": len(data), "compressed_size": len(packed)}
    return {"compressed": True, "compression_method": "gzip", **sizes, "data": packed.hex()}


def read(value: Any) -> list[Any]:
    return list(sysscan.findings(value, "x"))


BATCH = {"metadata": {}, "data": {"findings": NESTED, "correlations": [{"title": "c"}]}}


@pytest.mark.parametrize("value", [BATCH, wrapped(BATCH), {"findings": NESTED}, [BATCH], wrapped(wrapped(BATCH))])
def test_nesting_becomes_fields(value: Any) -> None:
    assert read(value) == [
        {**FINDING, "category": "network"},
        {"title": "u", "category": "network", "severity": "low"},
    ]


def test_fields_of_the_finding_win_and_keep_their_order() -> None:
    own = {"title": "t", "category": "mine", "severity": "info"}
    assert [list(found.items()) for found in read({"findings": {"net": {"high": [own]}}})] == [list(own.items())]


def test_findings_in_lists_and_alone() -> None:
    assert read([FINDING, FINDING]) == [FINDING, FINDING]
    assert read(FINDING) == [FINDING]
    assert read({"findings": [FINDING]}) == [FINDING]
    assert read(["odd"]) == ["odd"]


@pytest.mark.parametrize("value", [{"batches": 2, "findings": 406}, {}, {"metadata": {}, "data": {}}, 7, "x", None])
def test_documents_without_findings(value: Any) -> None:
    assert read(value) == []


@pytest.mark.parametrize("value", [{"findings": {"a": {"b": {"c": []}}}}, {"findings": {"a": 1}}])
def test_another_nesting_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match="nested"):
        read(value)


def test_observation_holds_no_answer() -> None:
    whole = {
        **FINDING,
        "id": "proc_mal_1",
        "tags": ["high_priority"],
        "rationale": "because high",
        "risk_total": 70,
        "probability_actionable": 0.7,
        "_data_quality": 1.0,
        "metadata": {"pid": 1},
        "category": "processes",
    }
    seen = {"title": "t", "description": "d", "metadata": {"pid": 1}, "category": "processes"}
    assert sysscan.observation(whole) == seen
