"""The prepare stage, from files to the set in the cache: counts, reasons, refusals, the cache itself."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare
from sysml_run.worker.data import store
from sysml_run.worker.data.masking import mask

Make = Callable[..., Recipe]
SEVERITIES = ("info", "low", "medium", "high", "critical")


def finding(number: int) -> dict[str, Any]:
    return {
        "id": f"x_{number}",
        "title": f"Port {number} open on {'abcdefgh'[number % 8]}",
        "description": "A port is open",
        "metadata": {"pid": number if number % 2 else str(number)},
        "severity": SEVERITIES[number % 5],
        "risk_score": number % 5 * 20.0,
        "tags": ["high_priority"],
    }


def batch(numbers: range, *, packed: bool = False) -> bytes:
    nested: dict[str, Any] = {}
    for found in map(finding, numbers):
        nested.setdefault("network", {}).setdefault(found["severity"], []).append(found)
    text = json.dumps({"metadata": {}, "data": {"findings": nested}})
    wrapped = {"compressed": True, "data": gzip.compress(text.encode()).hex()}
    return (json.dumps(wrapped) if packed else text).encode()


def archive(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(f"d/{name}.json")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(count)]


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    prepare.run(recipe, rundir)
    report: dict[str, Any] = read_json(rundir.data / "report.json")
    assert report["rows"]["read"] == report["rows"]["kept"] + sum(report["rows"]["dropped"].values())
    return report


def rows(rundir: RunDir) -> list[dict[str, Any]]:
    prepared = store.load(rundir)
    return [row for name in store.SPLITS for row in prepared.split(name)]


def source(path: Path, kind: str = "sysscan.finding", **more: Any) -> list[dict[str, Any]]:
    return [{"path": str(path), "type": kind, **more}]


@pytest.fixture
def findings(tmp_path: Path) -> Path:
    """One batch plain, one packed, a report without rows and a broken member."""
    good = {"batch_000": batch(range(40)), "batch_001": batch(range(40, 60), packed=True)}
    other = {"generation_report": b'{"batches": 2, "findings": 60}', "broken": b'{"data": '}
    return archive(tmp_path / "set.tar.gz", **good, **other)


def test_an_archive_of_findings(make_recipe: Make, rundir: RunDir, findings: Path, capsys: Any) -> None:
    report = run(make_recipe(datasets=source(findings)), rundir)
    assert report["rows"] == {"read": 60, "kept": 60, "dropped": {}}
    notes = {note["member"].removeprefix("d/"): note for note in report["files"]}
    assert notes["batch_000.json"]["rows"] == 40
    assert notes["batch_001.json"]["rows"] == 20
    assert notes["generation_report.json"]["skipped"] == "holds no rows"
    assert "JSONDecodeError" in notes["broken.json"]["unreadable"]
    printed = capsys.readouterr().out
    assert "60 rows read, 60 kept" in printed
    assert "passed over set.tar.gz:d/generation_report.json: holds no rows" in printed
    first = rows(rundir)[0]
    assert set(store.COLUMNS) == set(first)
    assert first["length"] == len(first["input_ids"]) == len(first["labels"])
    assert first["id"].startswith("set.tar.gz:d/batch_00")


def test_the_preset_shows_the_observation_and_asks_for_the_answer(
    make_recipe: Make, rundir: RunDir, findings: Path
) -> None:
    run(make_recipe(datasets=source(findings)), rundir)
    for row in rows(rundir):
        shown = json.loads(row["prompt"].split("\n")[4].removesuffix("<|im_end|>"))
        assert list(shown) == ["title", "description", "metadata", "category"]
        number = int(shown["metadata"]["pid"])
        assert type(shown["metadata"]["pid"]) is (int if number % 2 else str)
        assert row["completion"] == f'{{"severity":"{SEVERITIES[number % 5]}","risk_score":{number % 5 * 20}}}'


def test_own_map_where_and_max_rows(make_recipe: Make, rundir: RunDir, findings: Path) -> None:
    mapped = {"system": "", "prompt": "{{ title }}", "completion": "{{ severity }} {{ row.risk_score | whole }}"}
    recipe = make_recipe(datasets=source(findings, map=mapped, where="severity != 'info'", max_rows=30))
    report = run(recipe, rundir)
    assert report["rows"] == {"read": 60, "kept": 30, "dropped": {"where": 12, "max_rows": 18}}
    made = rows(rundir)
    assert {row["completion"].split()[0] for row in made} == set(SEVERITIES[1:])
    assert made[0]["prompt"].startswith("<|im_start|>user\nPort")


def test_max_rows_does_not_depend_on_order(make_recipe: Make, tmp_path: Path) -> None:
    chosen = []
    for name, order in (("a", 1), ("b", -1)):
        path = lines(tmp_path / f"{name}.jsonl", pairs(100)[::order])
        folder = RunDir(tmp_path / name)
        run(make_recipe(datasets=source(path, "prompt_completion", max_rows=20)), folder)
        chosen.append({row["prompt"] for row in rows(folder)})
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 20


def test_messages_and_lists_of_messages(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
    bad: list[Any] = [
        talk[:1],
        "text",
        [{"role": "robot", "content": ""}],
        [*talk[:1], {"role": "assistant", "content": " "}],
    ]
    (tmp_path / "m.json").write_text(json.dumps([{"messages": m} for m in [*[talk] * 9, *bad]]))
    lines(
        tmp_path / "p.jsonl", [{"prompt": talk[:1], "completion": talk[1:]}] * 3 + [{"prompt": "x", "completion": None}]
    )
    both = source(tmp_path / "m.json", "messages", map={"system": "s"}) + source(
        tmp_path / "p.jsonl", "prompt_completion"
    )
    report = run(make_recipe(datasets=both), rundir)
    assert report["rows"]["dropped"] == {"no_answer": 1, "bad_messages": 2, "empty_answer": 1, "null_field": 1}
    made = sorted(row["prompt"] for row in rows(rundir))
    assert made[0] == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\n"
    assert len(made) == 12
    assert not any("system" in prompt for prompt in made[9:])


def test_folder_glob_and_bad_lines(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    (folder / "in").mkdir(parents=True)
    good = lines(folder / "a.jsonl", pairs(10)).read_text()
    (folder / "a.jsonl").write_text(good + '{"cut": \n"text"\n')
    (folder / "in" / "b.json.gz").write_bytes(gzip.compress(json.dumps(pairs(5)).encode()))
    (folder / "c.csv").write_text("prompt,completion\nq,a\n")
    (folder / ".hidden").write_text("x")
    report = run(make_recipe(datasets=source(folder, "prompt_completion")), rundir)
    assert report["rows"] == {"read": 18, "kept": 16, "dropped": {"not_a_row": 2}}
    assert [(note["path"], note["rows"]) for note in report["files"]] == [
        ("a.jsonl", 12),
        ("c.csv", 1),
        ("in/b.json.gz", 5),
    ]
    assert [line for line, _ in report["files"][0]["bad_lines"]] == [11, 12]
    other = RunDir(tmp_path / "other")
    report = run(make_recipe(datasets=source(folder / "**" / "*.gz", "prompt_completion")), other)
    assert [note["path"] for note in report["files"]] == ["in/b.json.gz"]


def test_nothing_to_read(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data at"):
        run(make_recipe(datasets=source(tmp_path / "absent.json")), rundir)
    (tmp_path / "generation_report.json").write_text('{"findings": 3}')
    with pytest.raises(DataError, match=r"holds no rows of type sysscan\.finding") as caught:
        run(make_recipe(datasets=source(tmp_path / "generation_report.json")), rundir)
    assert str(caught.value.hint).endswith("looked in: generation_report.json, which has the fields findings")
    with pytest.raises(DataError, match=r"datasets\.0\.where keeps none of 5 rows: false"):
        run(
            make_recipe(datasets=source(lines(tmp_path / "a.jsonl", pairs(5)), "rows", where="false", map=BOTH)), rundir
        )


BOTH = {"prompt": "{{ prompt }}", "completion": "{{ completion }}"}


def test_mostly_unreadable(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", good=batch(range(9)), bad=b"{", worse=b"\xff\xfe")
    with pytest.raises(DataError, match="2 of 3 files or members") as caught:
        run(make_recipe(datasets=source(path)), rundir)
    assert "d/bad.json" in str(caught.value.hint)
    assert not rundir.data.exists()


def test_a_missing_field_stops_the_run(make_recipe: Make, rundir: RunDir, findings: Path, cache: Path) -> None:
    mapped = {"prompt": "{{ titel }}"}
    with pytest.raises(DataError, match=r"datasets\.0\.map\.prompt: 'titel' is undefined \(row set") as caught:
        run(make_recipe(datasets=source(findings, map=mapped)), rundir)
    assert "title, description" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"split\.stratify_by: no field 'sevrity'"):
        run(make_recipe(datasets=source(findings), split={"stratify_by": "sevrity"}), rundir)
    assert [path.name for path in (cache / "prepared").iterdir() if path.suffix != ".lock"] == []


def test_most_rows_lost(make_recipe: Make, rundir: RunDir, findings: Path) -> None:
    short = {"sequence_len": 16, "truncation": "drop"}
    with pytest.raises(DataError, match="60 of 60 rows would be lost: too_long 60"):
        run(make_recipe(datasets=source(findings), prompt=short), rundir)
    refusing = {"template": "{{ raise_exception('never') }}"}
    with pytest.raises(DataError, match=r"template_error 60; the first refused: .*never"):
        run(make_recipe(datasets=source(findings), prompt=refusing), rundir)


def test_cut_rows_are_counted_and_warned_of(make_recipe: Make, rundir: RunDir, findings: Path) -> None:
    report = run(make_recipe(datasets=source(findings), prompt={"sequence_len": 90}), rundir)
    assert report["splits"]["train"]["truncated"] == report["splits"]["train"]["rows"]
    assert report["splits"]["train"]["tokens"]["max"] == 90
    assert report["warnings"][0] == "60 of 60 rows are cut to prompt.sequence_len"


def test_masked_groups_do_not_leak_and_strata_keep_their_shares(make_recipe: Make, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", one=batch(range(400)))
    grouped = {"validation": 0.2, "stratify_by": "severity", "group_by": "masked_text"}
    drawn, parted = RunDir(tmp_path / "drawn"), RunDir(tmp_path / "parted")
    leaky = run(make_recipe(datasets=source(path), split={"validation": 0.2}), drawn)
    clean = run(make_recipe(datasets=source(path), split=grouped), parted)
    assert leaky["leakage"]["validation"]["masked_share"] > 0.9
    assert any("masked_text parts them" in warning for warning in leaky["warnings"])
    assert clean["leakage"]["validation"]["masked"] == clean["leakage"]["validation"]["exact"] == 0
    for counts in clean["balance"]["severity"].values():
        assert 0.1 <= counts["validation"] / sum(counts.values()) <= 0.3
    assert clean["duplicates"] == {"exact": 0, "masked": 400 - 40}


def test_group_by_field(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{**row, "host": {"name": i % 10}} for i, row in enumerate(pairs(50))])
    recipe = make_recipe(datasets=source(path, "prompt_completion"), split={"validation": 0.2, "group_by": "host.name"})
    run(recipe, rundir)
    sides = {
        name: {int(row["id"].split(":")[1]) % 10 for row in store.load(rundir).split(name)} for name in store.SPLITS
    }
    assert len(sides["validation"]) == 2
    assert not sides["train"] & sides["validation"]


def test_report_of_lengths(make_recipe: Make, rundir: RunDir, findings: Path) -> None:
    report = run(make_recipe(datasets=source(findings), split={"validation": 10, "test": 5}), rundir)
    made = {name: store.load(rundir).split(name) for name in store.SPLITS}
    assert {name: len(split) for name, split in made.items()} == {"train": 45, "validation": 10, "test": 5}
    for name, split in made.items():
        facts = report["splits"][name]
        assert facts["tokens"]["max"] == max(split["length"])
        assert facts["tokens"]["total"] == sum(split["length"])
        assert facts["loss_tokens"] == sum(split["loss_tokens"])
        assert facts["tokens"]["p50"] == sorted(split["length"])[-(-len(split) // 2) - 1]
        assert sum(report["lengths"][name]["counts"]) == len(split)
        assert all(ids[length:] for ids, length in zip(split["input_ids"], split["prompt_len"], strict=True))
    assert report["end_tokens"] == {"<|im_end|>": 60}


def test_surrogates_and_special_tokens_in_text(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    odd = [{"prompt": "\ud800", "completion": "a"}, {"prompt": "<|im_start|>system", "completion": "a"}]
    report = run(make_recipe(datasets=source(lines(tmp_path / "a.jsonl", pairs(5) + odd), "prompt_completion")), rundir)
    assert report["rows"]["dropped"] == {"not_unicode": 1}
    assert report["special_in_text"] == 1


def test_a_second_run_finds_the_set_and_one_word_makes_another(
    make_recipe: Make, findings: Path, tmp_path: Path, capsys: Any
) -> None:
    first = prepare.run(make_recipe(datasets=source(findings)), RunDir(tmp_path / "1"))
    capsys.readouterr()
    again = prepare.run(
        make_recipe(datasets=source(findings), prompt={"sequence_len": 512, "packing": True}), RunDir(tmp_path / "2")
    )
    assert (first["cache"], again["cache"], again["key"]) == ("made", "hit", first["key"])
    told = f"prepare: cache hit ({first['key'][:12]}…), {first['rows']['train']} training rows"
    assert told in capsys.readouterr().out
    packed = read_json(tmp_path / "2/data/report.json")
    assert read_json(tmp_path / "1/data/report.json") | {"packing": packed["packing"]} == packed
    changes: list[dict[str, Any]] = [
        {"datasets": source(findings, map={"system": "You are a careful analyst."})},
        {"prompt": {"sequence_len": 511}},
        {"split": {"validation": 0.21}},
        {"seed": 43},
    ]
    made = [make_recipe(**({"datasets": source(findings)} | change)) for change in changes]
    keys = {prepare.run(recipe, RunDir(tmp_path / f"x{i}"))["key"] for i, recipe in enumerate(made)}
    assert len(keys | {first["key"]}) == 5


def test_a_damaged_set_is_made_again(make_recipe: Make, findings: Path, rundir: RunDir) -> None:
    recipe = make_recipe(datasets=source(findings))
    prepare.run(recipe, rundir)
    arrow = store.load(rundir).path / "train" / store.ARROW
    whole = arrow.read_bytes()
    arrow.write_bytes(whole[:100])
    assert prepare.run(recipe, rundir)["cache"] == "made"
    assert arrow.read_bytes() == whole


def child(recipe: Recipe, rundir: Path, *after: str) -> subprocess.Popen[str]:
    code = [
        "import json, sys; from pathlib import Path",
        "from sysml_run import resolve; from sysml_run.rundir import RunDir",
        "from sysml_run.worker import prepare",
        "prepare.run(resolve.build(json.loads(sys.argv[1])), RunDir(Path(sys.argv[2])))",
        *after,
    ]
    argv = [sys.executable, "-c", "\n".join(code), json.dumps(asdict(recipe)), str(rundir)]
    env = os.environ | {"PYTHONPATH": "runner", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_a_hit_loads_no_training_library(make_recipe: Make, findings: Path, rundir: RunDir, tmp_path: Path) -> None:
    recipe = make_recipe(datasets=source(findings))
    prepare.run(recipe, rundir)
    heavy = ("torch", "transformers", "datasets", "pyarrow", "numpy", "tokenizers")
    with child(recipe, tmp_path / "2", f"print([name for name in {heavy} if name in sys.modules])") as process:
        printed = process.communicate()[0]
    assert process.returncode == 0
    assert printed.endswith("training rows\n[]\n")


@pytest.mark.slow
def test_runs_at_once_make_one_set(make_recipe: Make, findings: Path, tmp_path: Path, cache: Path) -> None:
    recipe = make_recipe(datasets=source(findings))
    processes = [child(recipe, tmp_path / f"{i}") for i in range(3)]
    assert all("prepare:" in process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    pointers = [read_json(tmp_path / f"{i}/data/prepared.json") for i in range(3)]
    assert sorted(pointer["cache"] for pointer in pointers) == ["hit", "hit", "made"]
    assert len({pointer["path"] for pointer in pointers}) == 1
    assert len([path for path in (cache / "prepared").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize(
    ("template", "name", "origin"),
    [
        ("tokenizer", "tokenizer", "that of {}"),
        ("none", "none", "sysml-run's own none.jinja"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "inline", "written in the recipe's prompt.template"),
    ],
)
def test_the_template_is_named_with_where_it_comes_from(
    make_recipe: Make, tmp_path: Path, tokenizer_folder: Path, capsys: Any, template: str, name: str, origin: str
) -> None:
    data = source(lines(tmp_path / "a.jsonl", pairs(20)), "prompt_completion")
    wanted = {"name": name, "origin": origin.format(tokenizer_folder.name)}
    for number, how in enumerate(("made", "hit")):
        rundir = RunDir(tmp_path / f"{number}")
        record = prepare.run(make_recipe(datasets=data, prompt={"template": template}), rundir)
        assert record["cache"] == how
        assert record["template"] == read_json(rundir.data / "report.json")["template"] == wanted
    assert capsys.readouterr().out.count(f"  template: {name}, {wanted['origin']}\n") == 1


REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "sysscan"


def real(name: str) -> Path:
    path = (REAL / name).resolve()
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return path


def test_the_real_archive(make_recipe: Make, tmp_path: Path, capsys: Any) -> None:
    data = source(real("massive_datasets.tar.gz"))
    short = {"sequence_len": 2048}
    grouped = {"validation": 0.2, "stratify_by": "severity", "group_by": "masked_text"}
    report = run(make_recipe(datasets=data, split=grouped, prompt=short), RunDir(tmp_path / "1"))
    assert report["rows"] == {"read": 406, "kept": 406, "dropped": {}}
    assert [note["rows"] for note in report["files"]] == [203, 203, 0]
    assert report["files"][2]["member"].endswith("generation_report.json")
    assert report["leakage"]["validation"]["masked"] == report["leakage"]["validation"]["exact"] == 0
    drawn = report["leakage"]["random_split"]["validation"]
    assert drawn["masked"] > 0
    held = report["splits"]["validation"]["rows"]
    beside = " and ".join(f"{drawn[kind]} ({drawn[kind] / held:.0%})" for kind in ("exact", "masked"))
    told = f"  validation rows also in train: 0 (0%), but for numbers and hex 0 (0%); in a random split {beside}\n"
    assert told in capsys.readouterr().out
    totals = {name: sum(counts.values()) for name, counts in report["balance"]["severity"].items()}
    assert totals == {"info": 190, "low": 86, "high": 61, "medium": 40, "critical": 29}
    made = rows(RunDir(tmp_path / "1"))
    shown = [json.loads(row["prompt"].split("\n")[4].removesuffix("<|im_end|>")) for row in made]
    assert {type(found["metadata"]["pid"]) for found in shown if "pid" in found["metadata"]} == {int, str}
    assert not any(set(found) & {"severity", "risk_score", "risk_total", "tags", "rationale", "id"} for found in shown)


def test_the_real_archive_leaks_when_drawn_at_random(make_recipe: Make, tmp_path: Path) -> None:
    mapped = {"prompt": "{{ title }}: {{ description }}", "completion": "{{ severity }}"}
    data = source(real("massive_datasets.tar.gz"), map=mapped)
    drawn = run(make_recipe(datasets=data, split={"validation": 0.2}), RunDir(tmp_path / "1"))
    parted = run(
        make_recipe(datasets=data, split={"validation": 0.2, "group_by": "masked_text"}), RunDir(tmp_path / "2")
    )
    assert drawn["leakage"]["validation"]["masked_share"] > 0.5
    assert parted["leakage"]["validation"]["masked"] == 0
    prepared = store.load(RunDir(tmp_path / "2"))
    asked = [{mask(prompt) for prompt in prepared.split(name)["prompt"]} for name in ("train", "validation")]
    assert not asked[0] & asked[1]  # nor is a question with another answer


def test_other_real_files(make_recipe: Make, tmp_path: Path) -> None:
    wide = {"sequence_len": 4096}
    findings = source(real("test_pipeline_output.json"))
    assert run(make_recipe(datasets=findings, prompt=wide), RunDir(tmp_path / "1"))["rows"]["kept"] == 23
    talks = source(real("structured_dataset_sample.json"), "messages")
    assert run(make_recipe(datasets=talks, prompt=wide), RunDir(tmp_path / "2"))["rows"]["kept"] == 5
    with pytest.raises(DataError, match=r"holds no rows of type sysscan\.finding"):
        run(make_recipe(datasets=source(real("producer_test_output.json"))), RunDir(tmp_path / "3"))
