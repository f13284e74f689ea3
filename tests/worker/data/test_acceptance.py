"""What the real archives ask of reading, mapping and routing, from files to the report of a prepared set."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document
from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare
from sysml_run.worker.data import store
from sysml_run.worker.data.masking import mask

from .reading import read, rows

Make = Callable[..., Recipe]
REAL = Path(__file__).parents[3] / ".." / "shared" / "data" / "sysscan"
WORDS = ("security", "vulnerability", "exploit", "attack", "malware", "threat", "risk", "compliance", "audit")
WORDS += ("scan", "intrusion")
SECURITY = f"(title ~ ' ' ~ description) | mentions({', '.join(map(repr, WORDS))})"


def finding(number: int, **more: Any) -> dict[str, Any]:
    text = "Malware was found" if number % 4 == 0 else "A port is open"
    pid = number if number % 2 else str(number)
    kept = {"id": f"f_{number}", "title": f"Finding {number}", "description": text, "metadata": {"pid": pid}}
    return kept | {"severity": "low", "risk_score": float(number)} | more


def batch(numbers: range, **data: Any) -> dict[str, Any]:
    """Findings nested by category and severity, which the findings themselves do not say."""
    bare = [{key: value for key, value in finding(n).items() if key != "severity"} for n in numbers]
    return {"metadata": {}, "data": {"findings": {"network": {"high": bare[::2], "low": bare[1::2]}}, **data}}


def packed(value: Any) -> dict[str, Any]:
    return {"compressed": True, "compression_method": "gzip", "data": gzip.compress(json.dumps(value).encode()).hex()}


def archive(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(f"massive/{name.replace('__', '.')}")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def report(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    prepare.run(recipe, rundir)
    found: dict[str, Any] = read_json(rundir.data / "report.json")
    return found


def source(path: Path, kind: str = "sysscan.finding", **keys: Any) -> list[dict[str, Any]]:
    return [{"path": str(path), "type": kind, **keys}]


def test_1_every_encoding_in_one_archive(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    path = archive(
        tmp_path / "all.tar.gz",
        batch_000__json=as_bytes(packed(batch(range(40)))),
        batch_001__json=as_bytes(batch(range(40, 60))),
        batch_002__json__gz=gzip.compress(as_bytes(batch(range(60, 70)))),
        batch_003__json=gzip.compress(as_bytes(batch(range(70, 80)))),
        generation_report__json=b'{"batches": 4, "findings": 80}',
        corrupt__json=as_bytes(batch(range(9)))[:-40],
    )
    found = report(make_recipe(datasets=source(path)), rundir)
    assert found["rows"]["read"] == found["rows"]["kept"] == 80
    notes = {note["member"]: note for note in found["files"]}
    assert [note["rows"] for note in notes.values()] == [40, 20, 10, 10, 0, 0]
    assert notes["massive/generation_report.json"]["skipped"] == "holds no rows"
    assert "JSONDecodeError" in notes["massive/corrupt.json"]["unreadable"]
    printed = (rundir.path / "data" / "report.json").read_text()
    assert "massive/corrupt.json" in printed


def test_2_nesting_becomes_columns(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(as_bytes(batch(range(40))))
    mapped = {"prompt": "{{ category }} {{ title }}", "completion": "{{ severity }}"}
    found = report(make_recipe(datasets=source(tmp_path / "a.json", map=mapped)), rundir)
    counted = {
        field: {name: sum(sides.values()) for name, sides in found["balance"][field].items()}
        for field in found["balance"]
    }
    assert counted == {"category": {"network": 40}, "severity": {"high": 20, "low": 20}}


def test_3_mixed_types_in_one_field(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(as_bytes([finding(n) for n in range(40)]))
    report(make_recipe(datasets=source(tmp_path / "a.json")), rundir)
    prompts = [row["prompt"] for name in store.SPLITS for row in store.load(rundir).split(name)]
    assert len(prompts) == 40
    assert sum('"metadata":{"pid":"2"}' in prompt for prompt in prompts) == 1
    assert sum('"metadata":{"pid":3}' in prompt for prompt in prompts) == 1


def correlation(*refs: str) -> dict[str, Any]:
    return {
        "id": "corr_1",
        "title": "Together",
        "description": "d",
        "severity": "high",
        "risk_score": 75.0,
        "category": "correlation",
        "correlation_type": "c",
        "correlation_refs": list(refs),
        "metadata": {},
    }


def test_4_correlations_are_joined_by_id(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    joined = [correlation(f"f_{n}", f"f_{n + 1}", "f_999") for n in range(0, 40, 2)]
    path = archive(tmp_path / "a.tar.gz", a__json=as_bytes(batch(range(45), correlations=joined)))
    found = report(make_recipe(datasets=source(path, "sysscan.correlation")), rundir)
    assert found["rows"]["kept"] == 20
    assert found["refs"] == {"found": 40, "missing": 20}
    assert any("20 of 60 refs of correlations" in warning for warning in found["warnings"])
    (_, first), *_ = rows(path, "sysscan.correlation")
    assert [each["id"] for each in first["findings"]] == ["f_1", "f_0"]
    assert first["missing_refs"] == 1
    (_, messages), *_ = read(path, "sysscan.correlation")
    assert "Finding 0" in messages[1]["content"]
    assert not any(word in messages[1]["content"] for word in ('risk_score"', 'severity"', "f_0"))


def test_5_a_missing_field_is_an_error(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(as_bytes([finding(n) for n in range(40)]))
    mapped = {"prompt": "{{ summary }}", "completion": "{{ severity }}"}
    with pytest.raises(DataError, match="'summary' is undefined") as caught:
        report(make_recipe(datasets=source(tmp_path / "a.json", map=mapped)), rundir)
    assert caught.value.hint == "fields found: id, title, description, metadata, severity, risk_score, finding"
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"title": "t", "text": "x"}\n' * 20)
    with pytest.raises(DataError, match=r"none of 20 rows can be used: not_a_row 20") as caught:
        report(make_recipe(datasets=source(lines, "alpaca")), rundir)
    assert "an object with instruction and output" in str(caught.value.hint)
    lines.write_text('{"instruction": "t"}\n' * 20)
    with pytest.raises(DataError, match="'output' is undefined") as caught:
        report(make_recipe(datasets=source(lines, "alpaca")), rundir)
    assert "type alpaca wants an object with instruction and output" in str(caught.value.hint)


def test_6_a_window_that_cuts_every_row_is_told(make_recipe: Make, rundir: RunDir, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.json").write_bytes(as_bytes([finding(n, rationale="because " * 40) for n in range(40)]))
    mapped = {"prompt": "{{ row | tojson(indent=2) }}", "completion": "{{ severity }}"}
    cut = make_recipe(datasets=source(tmp_path / "a.json", map=mapped), prompt={"sequence_len": 64})
    found = report(cut, rundir)
    assert {split["truncated_share"] for split in found["splits"].values() if split["rows"]} == {1.0}
    assert "40 of 40 rows are cut to prompt.sequence_len" in found["warnings"]
    assert "warning: 40 of 40 rows are cut to prompt.sequence_len" in capsys.readouterr().out
    refuse = {"sequence_len": 64, "truncation": "error"}
    with pytest.raises(DataError, match=r"has \d+ tokens and prompt\.sequence_len is 64"):
        report(make_recipe(datasets=source(tmp_path / "a.json", map=mapped), prompt=refuse), RunDir(tmp_path / "2"))


def test_7_no_masked_text_on_two_sides(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    names = [f"{first}{last}" for first in "ghjkmnpq" for last in "stuvwxyz"]
    kinds = ("low", "high")
    rows = [finding(n, title=f"Port {n} on {names[n % 64]}", severity=kinds[n // 64 % 2]) for n in range(256)]
    (tmp_path / "a.json").write_bytes(as_bytes(rows))
    mapped = {"prompt": "{{ title }}", "completion": "{{ severity }}"}
    split = {"validation": 0.2, "test": 0.1, "group_by": "masked_text", "stratify_by": "severity"}
    found = report(make_recipe(datasets=source(tmp_path / "a.json", map=mapped), split=split), rundir)
    texts = {name: {mask(row["prompt"]) for row in store.load(rundir).split(name)} for name in store.SPLITS}
    assert all(texts.values())
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]
    for name in ("validation", "test"):
        assert found["leakage"][name]["masked"] == found["leakage"][name]["exact"] == 0
        assert found["leakage"]["random_split"][name]["masked"] > 0
        low, high = (sides[name] for sides in found["balance"]["severity"].values())
        assert low > 0
        assert abs(low - high) <= 2


def test_8_and_9_answer_and_end_survive_and_are_learned(
    make_recipe: Make, rundir: RunDir, tmp_path: Path, tokenizer: Any
) -> None:
    """Cut on the left, with the padding token for an end token and a template that writes the begin token."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    (tmp_path / "a.json").write_bytes(as_bytes([finding(n, description="word " * 90) for n in range(40)]))
    prompt = {"sequence_len": 64, "truncation": "left", "template": "{{ bos_token }}" + tokenizer.chat_template}
    found = report(make_recipe(datasets=source(tmp_path / "a.json"), prompt=prompt), rundir)
    made = [row for name in store.SPLITS for row in store.load(rundir).split(name)]
    assert len(made) == 40 == sum(split["truncated"] for split in found["splits"].values())
    for row in made:
        learned = [id for id in row["labels"] if id != -100]
        assert tokenizer.decode(learned) == row["completion"] + "<|im_end|>"
        assert json.loads(row["completion"])["severity"] == "low"
        assert learned[-1] == row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert row["input_ids"].count(tokenizer.bos_token_id) == 1


def test_10_a_learning_rate_in_science_notation(make_recipe: Make) -> None:
    source = make_recipe(datasets=[{"path": "a", "type": "text"}])
    assert source.optimizer.learning_rate == 1e-3
    text = "optimizer: {name: lion, lr_scheduler: cosine, learning_rate: 2e-5}"
    assert document.parse(text, "r.yaml").value["optimizer"]["learning_rate"] == 2e-5


def test_11_routing_counts_both_sides(make_recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(as_bytes([finding(n) for n in range(80)]))
    kept = {}
    for take in ("match", "rest"):
        route = {"when": SECURITY, "take": take}
        found = report(make_recipe(datasets=source(tmp_path / "a.json", route=route)), RunDir(tmp_path / take))
        assert found["routes"] == [{"dataset": 0, "when": SECURITY, "take": take, "match": 20, "rest": 60}]
        kept[take] = found["rows"]["kept"]
    assert kept == {"match": 20, "rest": 60}
    for when, words in (("'malware' in title", "none of 80 rows match"), ("true", "all of 80 rows match")):
        with pytest.raises(DataError, match=words) as caught:
            report(make_recipe(datasets=source(tmp_path / "a.json", route={"when": when})), RunDir(tmp_path / "x"))
        assert when in caught.value.message


def test_12_an_archive_with_a_way_out(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name in ("good.json", "../../evil.json"):
            info = tarfile.TarInfo(name)
            info.size = len(as_bytes(batch(range(40))))
            made.addfile(info, io.BytesIO(as_bytes(batch(range(40)))))
    (tmp_path / "in.tar.gz").write_bytes(out.getvalue())
    with pytest.raises(DataError, match=r"in\.tar\.gz: member '\.\./\.\./evil\.json'"):
        report(make_recipe(datasets=source(tmp_path / "in.tar.gz")), rundir)
    assert not list(tmp_path.rglob("*evil*"))
    assert not list((tmp_path / "cache").rglob("report.json"))


def test_redacted_text_is_nowhere_on_disk(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    rows = [finding(n, title=f"Host 10.1.2.{n} is up", metadata={"ip": [f"10.1.2.{n}"]}) for n in range(40)]
    (tmp_path / "a.json").write_bytes(as_bytes(rows))
    redact = [{"pattern": r"10\.1\.2\.\d+", "replace": "<ip>"}, {"pattern": "secret"}]
    found = report(make_recipe(datasets=source(tmp_path / "a.json", redact=redact)), rundir)
    assert [each["replaced"] for each in found["redacted"]] == [80, 0]
    written = [file for folder in (rundir.path, tmp_path / "cache") for file in folder.rglob("*") if file.is_file()]
    assert len(written) > 5
    assert not [file for file in written if b"10.1.2." in file.read_bytes()]


def test_correlations_of_the_real_archive() -> None:
    path = (REAL / "massive_datasets.tar.gz").resolve()
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    found = [row for _, row in rows(path, "sysscan.correlation")]
    assert len(found) == 125
    refs = sum(len(row["correlation_refs"]) for row in found)
    assert sum(len(row["findings"]) + row["missing_refs"] for row in found) == refs
    assert all(row["findings"] for row in found)
