"""The example findings: same bytes for the same seed, sys-scan's layout and types, and a task worth learning."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "sysscan" / "massive_datasets.tar.gz"
SCRIPT = ROOT / "examples" / "make_findings.py"
PROMPT_FIELDS = ("title", "description", "category", "metadata", "baseline_status", "operational_error")
SEVERITIES = ("info", "low", "medium", "high", "critical")
CATEGORIES = ("processes", "network", "kernel_params", "modules", "world_writable", "suid", "ioc", "mac", "dns")
CATEGORIES += ("endpoint_behavior", "context")
KEYS = {
    *("id", "title", "severity", "risk_score", "base_severity_score", "description", "metadata", "operational_error"),
    *("category", "tags", "risk_subscores", "correlation_refs", "baseline_status", "severity_source"),
    *("probability_actionable", "rationale", "risk_total", "_processed_at", "_data_quality"),
}
# A real key that no prompt may hold, because it spells a severity.
LEFT_OUT = {("mac", "unconfined_critical")}

sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tools")]


def make(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read(archive: Path) -> dict[str, Any]:
    """The JSON of every member, by name; a wrapped batch stays wrapped."""
    with tarfile.open(archive) as tar:
        return {member.name: json.load(tar.extractfile(member)) for member in tar.getmembers() if member.isfile()}


def unwrap(document: dict[str, Any]) -> dict[str, Any]:
    if document.get("compressed"):
        return json.loads(gzip.decompress(bytes.fromhex(document["data"])))
    return document


def batches(archive: Path) -> list[dict[str, Any]]:
    documents = [unwrap(document) for document in read(archive).values()]
    return [document for document in documents if "data" in document]


def rows(archive: Path) -> list[dict[str, Any]]:
    nested = [batch["data"]["findings"] for batch in batches(archive)]
    return [row for by in nested for levels in by.values() for found in levels.values() for row in found]


def texts(value: Any) -> list[str]:
    """Every key and scalar inside `value`, as text."""
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in (key, *texts(inner))]
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return [str(value)]


def masked(row: dict[str, Any]) -> str:
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d+", "#", f"{row['title']}\n{row['description']}")


def shapes(found: list[dict[str, Any]]) -> dict[tuple[str, str], set[str]]:
    """The JSON types that each category gives each metadata key."""
    seen: dict[tuple[str, str], set[str]] = {}
    for row in found:
        for key, value in row["metadata"].items():
            seen.setdefault((row["category"], key), set()).add(type(value).__name__)
    return seen


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    out = tmp_path_factory.mktemp("findings") / "deep" / "findings.tar.gz"
    done = make(out)
    assert done.returncode == 0, done.stderr
    assert "600 findings" in done.stdout
    return out


@pytest.fixture(scope="module")
def made(archive):
    return rows(archive)


def test_the_same_seed_gives_the_same_bytes(archive, tmp_path):
    make(tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()
    assert list(archive.parent.iterdir()) == [archive]


def test_the_findings_are_the_same_everywhere(made):
    """The documented figures of the quickstart hold for these findings; change them together."""
    first = sorted(made, key=lambda row: row["_processed_at"])
    digest = hashlib.sha256(json.dumps(first).encode()).hexdigest()[:16]
    assert digest == "2806ac8ce2fa676d"


def test_another_seed_gives_other_findings(archive, tmp_path):
    make(tmp_path / "other.tar.gz", "--seed", "8")
    other = rows(tmp_path / "other.tar.gz")
    assert len(other) == 600
    assert not {row["id"] for row in other} & {row["id"] for row in rows(archive) if row["category"] == "suid"}


def test_rows_are_as_many_as_asked(tmp_path):
    make(tmp_path / "few.tar.gz", "--rows", "101")
    few = rows(tmp_path / "few.tar.gz")
    assert len(few) == 101
    assert {row["category"] for row in few} == set(CATEGORIES)


def test_wrong_usage_is_told_without_a_traceback(tmp_path):
    few = make(tmp_path / "few.tar.gz", "--rows", "5")
    assert (few.returncode, "at least 100" in few.stderr) == (2, True)
    (tmp_path / "file").write_text("")
    blocked = make(tmp_path / "file" / "x.tar.gz")
    assert blocked.returncode == 2
    assert "cannot write" in blocked.stderr
    assert "Traceback" not in blocked.stderr


def test_members_are_a_plain_batch_a_wrapped_one_and_a_report(archive):
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert [Path(name).name.split("_2")[0] for name in names] == ["batch_000", "batch_001", "generation_report.json"]
    assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}
    plain, wrapped, report = read(archive).values()
    assert set(plain) == {"metadata", "data"}
    assert report == {"batches": 2, "findings": 600}
    raw = bytes.fromhex(wrapped["data"])
    assert wrapped["compression_method"] == "gzip"
    assert (len(raw), len(gzip.decompress(raw))) == (wrapped["compressed_size"], wrapped["original_size"])


def test_findings_stand_where_their_fields_say(archive):
    for batch in batches(archive):
        for category, levels in batch["data"]["findings"].items():
            for severity, found in levels.items():
                assert {(row["category"], row["severity"]) for row in found} == {(category, severity)}


def test_statistics_and_metadata_count_right(archive):
    for batch in batches(archive):
        found = [row for levels in batch["data"]["findings"].values() for part in levels.values() for row in part]
        counted = batch["data"]["statistics"]
        assert counted["total_findings"] == len(found) == 300
        assert counted["severity_distribution"] == Counter(row["severity"] for row in found)
        assert batch["metadata"]["data_characteristics"]["total_findings"] == len(found)


def test_correlations_point_at_findings_of_their_batch(archive):
    for batch in batches(archive):
        known = {row["id"] for levels in batch["data"]["findings"].values() for part in levels.values() for row in part}
        links = batch["data"]["correlations"]
        assert links
        for link in links:
            assert len(link["correlation_refs"]) == link["graph_degree"] >= 2
            assert set(link["correlation_refs"]) <= known


def test_every_finding_has_every_key(made):
    assert all(set(row) == KEYS for row in made)
    assert len({row["id"] for row in made}) == len(made)
    for row in made:
        assert isinstance(row["risk_score"], float)
        assert row["risk_score"] == row["base_severity_score"] == row["risk_total"]
        assert 0 <= row["probability_actionable"] <= 1
        assert set(row["risk_subscores"]) == {"impact", "exposure", "anomaly", "confidence"}


def test_types_are_mixed_as_in_real_findings(made):
    seen = shapes(made)
    assert seen["processes", "pid"] == {"int"}
    assert seen["ioc", "pid"] == {"str"}
    assert seen["processes", "pattern_match"] == {"bool"}
    assert seen["ioc", "pattern_match"] == {"str"}
    assert seen["processes", "deleted_executable"] == {"bool"}
    assert seen["ioc", "deleted_executable"] == {"str"}
    assert seen["network", "process"] == {"str", "NoneType"}
    assert seen["dns", "detections"] == {"list"}
    assert seen["context", "environment"] == {"dict"}


def test_prompts_do_not_hold_the_answer(made):
    for row in made:
        shown = " ".join(texts({field: row[field] for field in PROMPT_FIELDS})).lower()
        told = [name for name in SEVERITIES if name in shown]
        assert not told, f"{row['id']} shows {told}: {shown}"
        assert "risk_score" not in shown


def test_every_category_has_every_severity_and_none_prevails(made):
    pairs = Counter((row["category"], row["severity"]) for row in made)
    assert set(pairs) == {(category, severity) for category in CATEGORIES for severity in SEVERITIES}
    shares = {name: sum(pairs[category, name] for category in CATEGORIES) / len(made) for name in SEVERITIES}
    assert max(shares.values()) <= 0.5
    for name, wanted in zip(SEVERITIES, (0.45, 0.20, 0.12, 0.15, 0.08), strict=True):
        assert abs(shares[name] - wanted) < 0.02


def test_risk_scores_are_few_and_in_bands(made):
    bands = {"info": (10, 15), "low": (20, 30), "medium": (40, 65), "high": (70, 88), "critical": (90, 98)}
    for name, (least, most) in bands.items():
        scores = {row["risk_score"] for row in made if row["severity"] == name}
        assert least <= min(scores) <= max(scores) <= most
        assert 2 <= len(scores) <= 4


def test_texts_stay_many_once_numbers_are_masked(made):
    groups = Counter(masked(row) for row in made)
    assert len(groups) >= 250
    assert max(groups.values()) <= 0.05 * len(made)


def test_one_feature_alone_does_not_tell_the_severity():
    """In every grid, the best guess from the row alone or the column alone is wrong for a good part of the mix."""
    from finding_rules import KINDS, MIX

    for kind in KINDS:
        mass = {cell: MIX[name] / len(kind.cells(name)) for name in MIX for cell in kind.cells(name)}
        said = {cell: name for name in MIX for cell in kind.cells(name)}
        for axis in (0, 1):
            sums: Counter[tuple[int, str]] = Counter()
            for cell, share in mass.items():
                sums[cell[axis], said[cell]] += share
            best = sum(max(v for (at, _), v in sums.items() if at == place) for place in {cell[axis] for cell in mass})
            assert best <= 75, f"{kind.category}: feature {axis} alone is right in {best:.0f} %"


def test_grids_fit_their_choices():
    from finding_rules import KINDS, MIX

    assert {kind.category for kind in KINDS} == set(CATEGORIES)
    assert sum(kind.rows for kind in KINDS) == 600
    for kind in KINDS:
        assert [len(line) for line in kind.grid] == [len(kind.two)] * len(kind.one), kind.category
        assert all(kind.cells(name) for name in MIX), kind.category


@pytest.mark.skipif(not REAL.exists(), reason="the real archive is not here")
def test_keys_and_types_of_the_real_archive_are_covered(made):
    real = rows(REAL)
    assert {key for row in real for key in row} == KEYS
    assert {row["category"] for row in real} == set(CATEGORIES)
    ours, theirs = shapes(made), shapes(real)
    missing = {place: kinds - ours.get(place, set()) for place, kinds in theirs.items() if place not in LEFT_OUT}
    assert not {place: kinds for place, kinds in missing.items() if kinds}


def test_the_shipped_samples_are_fresh():
    from make_samples import TARGET, samples

    for name, text in samples().items():
        assert (TARGET / name).read_text(encoding="utf-8") == text, f"stale {name}: run python tools/make_samples.py"
    assert {file.name for file in TARGET.glob("*.jsonl")} == set(samples())


def test_samples_span_categories_and_severities():
    from make_samples import samples

    made = {name: [json.loads(line) for line in text.splitlines()] for name, text in samples().items()}
    found = made["sysscan.finding.jsonl"]
    assert len(found) == 64
    assert {(r["category"], r["severity"]) for r in found} == {(c, s) for c in CATEGORIES for s in SEVERITIES}
    assert [set(row) for row in made["prompt_completion.jsonl"]] == [{"prompt", "completion"}] * 32
    roles = [[turn["role"] for turn in row["messages"]] for row in made["messages.jsonl"]]
    assert roles == [["system", "user", "assistant"]] * 32
