"""Findings -> sys-scan's archive: batches nested by category and severity, one plain, one hex of gzip inside JSON."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import statistics
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Finding = dict[str, Any]

FOLDER, STAMP, MADE_AT = "massive_datasets_max", "20250101_000000", "2025-01-01T00:00:00"
STEPS = ("data_normalization", "quality_assessment", "structure_optimization", "metadata_generation")
SERIOUS = ("high", "critical")
# Type, severity, score, the two categories it joins, what it says.
LINKS = (
    ("malware_c2", "critical", 95, "processes", "network", "A hidden program and a call home on one network"),
    ("causal_ioc_process", "high", 85, "ioc", "processes", "A matched indicator and the program behind it"),
    ("temporal_sequence", "high", 80, "dns", "endpoint_behavior", "A watch-listed name, then unusual work by a user"),
    (
        "module_kernel_conflict",
        "medium",
        60,
        "modules",
        "kernel_params",
        "A risky module while kernel defences are off",
    ),
)


def pack(findings: Sequence[Finding], out: Path) -> None:
    """Write the archive whole or not at all; the same findings give the same bytes. Raises OSError."""
    half = (len(findings) + 1) // 2
    batches = [batch(findings[:half]), batch(findings[half:])]
    members = {
        f"{FOLDER}/batch_000_{STAMP}.json": compact(batches[0]),
        f"{FOLDER}/batch_001_{STAMP}.json": compact(wrapped(compact(batches[1]))),
        f"{FOLDER}/generation_report.json": compact({"batches": len(batches), "findings": len(findings)}),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_bytes(tar_gz(members))
    part.replace(out)


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def tar_gz(members: dict[str, bytes]) -> bytes:
    """A gzipped tar of regular files, sorted by name, with every time and owner 0."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size = len(members[name])
            tar.addfile(entry, io.BytesIO(members[name]))
    return gzip.compress(raw.getvalue(), mtime=0)


def wrapped(document: bytes) -> dict[str, Any]:
    """sys-scan's own compression of a batch: the hex text of its gzip bytes, with both sizes in bytes."""
    data = gzip.compress(document, mtime=0)
    sizes = {"original_size": len(document), "compressed_size": len(data)}
    return {"compressed": True, "compression_method": "gzip", **sizes, "data": data.hex()}


def batch(findings: Sequence[Finding]) -> dict[str, Any]:
    """A batch document: what it is, then findings by category and severity, correlations and counts."""
    links = correlations(findings)
    nested: dict[str, dict[str, list[Finding]]] = {}
    for finding in findings:
        nested.setdefault(finding["category"], {}).setdefault(finding["severity"], []).append(finding)
    data = {
        "version": "2.0",
        "generated_at": MADE_AT,
        "dataset_type": "synthetic_security_findings",
        "findings": nested,
    }
    return {
        "metadata": about(findings, len(links)),
        "data": data | {"correlations": links, "statistics": counts(findings, links)},
    }


def about(findings: Sequence[Finding], links: int) -> dict[str, Any]:
    """The batch's `metadata`; its id is a digest of the findings."""
    covered = len({finding["category"] for finding in findings})
    return {
        "dataset_id": digest(compact(list(findings)), 16),
        "creation_timestamp": MADE_AT,
        "version": "2.0",
        "format": "optimized_json",
        "compression": False,
        "langchain_enriched": False,
        "verification_summary": {"overall_status": "passed", "stages_passed": len(STEPS), "quality_score": 1.0},
        "data_characteristics": {
            "total_findings": len(findings),
            "total_correlations": links,
            "scanner_coverage": covered,
        },
        "processing_pipeline": list(STEPS),
    }


def digest(content: bytes, digits: int) -> str:
    return hashlib.sha256(content).hexdigest()[:digits]


def counts(findings: Sequence[Finding], links: Sequence[Finding]) -> dict[str, Any]:
    """The batch's `statistics`."""
    scores = [finding["risk_score"] for finding in findings]
    return {
        "total_findings": len(findings),
        "severity_distribution": dict(Counter(finding["severity"] for finding in findings)),
        "category_distribution": dict(Counter(finding["category"] for finding in findings)),
        "risk_score_stats": {
            "mean": round(statistics.mean(scores), 2),
            "median": statistics.median(scores),
            "min": min(scores),
            "max": max(scores),
            "std_dev": round(statistics.pstdev(scores), 2),
        },
        "correlation_stats": {"types": dict(Counter(link["correlation_type"] for link in links))},
    }


def correlations(findings: Sequence[Finding]) -> list[Finding]:
    """One correlation for each of LINKS whose two categories both hold a serious finding of this batch."""
    serious = [finding for finding in findings if finding["severity"] in SERIOUS]
    made = []
    for kind, severity, score, *joined, text in LINKS:
        sides = [[item["id"] for item in serious if item["category"] == category][:2] for category in joined]
        if all(sides):
            made.append(correlation(kind, severity, score, text, sides[0] + sides[1]))
    return made


def correlation(kind: str, severity: str, score: int, text: str, refs: list[str]) -> Finding:
    """A correlation with sys-scan's keys; every id in `refs` is in the same batch."""
    group = f"corr_{kind}_{digest(kind.encode(), 8)}"
    strength = round(0.5 + score / 200, 3)
    return {
        "id": f"{group}_{digest(' '.join(refs).encode(), 8)}",
        "title": text,
        "severity": severity,
        "risk_score": float(score),
        "base_severity_score": score,
        "description": f"{text}: {len(refs)} findings belong together.",
        "metadata": {"correlation_reason": kind},
        "operational_error": False,
        "category": "correlation",
        "tags": ["correlation", kind],
        "risk_subscores": {"impact": score / 100, "exposure": 0.5, "anomaly": 0.5, "confidence": strength},
        "correlation_refs": refs,
        "baseline_status": "new",
        "severity_source": "correlation",
        "probability_actionable": score / 100,
        "graph_degree": len(refs),
        "cluster_id": group,
        "rationale": text + ".",
        "risk_total": score,
        "correlation_type": kind,
        "correlation_strength": strength,
        "timestamp": MADE_AT,
    }
