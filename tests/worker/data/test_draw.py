"""Which rows are trained on how often: repeats, weights, balance, sides of whole datasets; and what the report says."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run import datasummary
from sysml_run.errors import DataError
from sysml_run.recipe import Balance, Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare
from sysml_run.worker.data import draw, store
from sysml_run.worker.data.columns import first, same

Make = Callable[..., Recipe]


def lines(path: Path, count: int, word: str = "What", **more: Any) -> dict[str, Any]:
    """A dataset of `count` rows of four kinds, the first the most frequent."""
    kinds = ["abacabad"[i % 8] for i in range(count)]
    rows = [{"prompt": f"{word} is {i}?", "completion": f"It is {i}.", "kind": kind} for i, kind in enumerate(kinds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "type": "prompt_completion", **more}


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    prepare.run(recipe, rundir)
    report: dict[str, Any] = read_json(rundir.data / "report.json")
    assert report["rows"]["read"] == report["rows"]["kept"] + sum(report["rows"]["dropped"].values())
    for name in store.SPLITS:
        assert len(store.load(rundir).split(name)) == report["splits"][name]["rows"]
    return report


def ids(rundir: RunDir, split: str) -> Counter[str]:
    return Counter(store.load(rundir).split(split)["id"])


def test_a_dataset_used_as_one_side(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    data = [
        lines(tmp_path / "a.jsonl", 40),
        lines(tmp_path / "b.jsonl", 10, "Who", use_as="validation"),
        lines(tmp_path / "c.jsonl", 8, "Why", use_as="test"),
        lines(tmp_path / "d.jsonl", 6, "How", use_as="train"),
    ]
    report = run(make_recipe(datasets=data, split={"validation": 5, "test": 0}), rundir)
    assert {name: facts["rows"] for name, facts in report["splits"].items()} == {
        "train": 41,
        "validation": 15,
        "test": 8,
    }
    assert sum(count for id, count in ids(rundir, "validation").items() if id.startswith("b.jsonl")) == 10
    assert {id.split(":")[0] for id in ids(rundir, "test")} == {"c.jsonl"}


def test_a_fixed_side_shows_in_the_leak_report(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    data = [lines(tmp_path / "a.jsonl", 40), lines(tmp_path / "b.jsonl", 10, use_as="test")]
    leakage = run(make_recipe(datasets=data, split={"validation": 0}), rundir)["leakage"]
    assert (leakage["test"]["exact"], leakage["test"]["exact_share"]) == (10, 1.0)
    drawn = leakage["random_split"]["test"]
    assert 0 < drawn["exact"] < 10
    assert drawn["masked"] == 10


@pytest.mark.parametrize(("kind", "kept"), [("none", 60), ("exact", 50), ("masked", 1)])
def test_repeats_are_left_out(make_recipe: Make, rundir: RunDir, tmp_path: Path, kind: str, kept: int) -> None:
    data = [lines(tmp_path / "a.jsonl", 50), lines(tmp_path / "b.jsonl", 10)]
    if kept == 1:
        data.append(lines(tmp_path / "c.jsonl", 30, "Who"))
        kept = 2
    report = run(make_recipe(datasets=data, split={"validation": 1, "dedupe": kind}), rundir)
    assert report["rows"]["kept"] == kept
    assert report["rows"]["dropped"] == ({"duplicate": report["rows"]["read"] - kept} if kind != "none" else {})
    assert report["duplicates"][kind if kind != "none" else "exact"] == (10 if kind == "none" else 0)
    everything = ids(rundir, "train") + ids(rundir, "validation")
    assert kind == "none" or all(id.startswith(("a.", "c.")) for id in everything)


def test_weights_count_in_training_alone(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    data = [
        lines(tmp_path / "half.jsonl", 400, "a", weight=0.5),
        lines(tmp_path / "once.jsonl", 40, "b"),
        lines(tmp_path / "more.jsonl", 400, "c", weight=2.25),
        lines(tmp_path / "held.jsonl", 9, "d", weight=3, use_as="validation"),
    ]
    report = run(make_recipe(datasets=data, split={"validation": 0.2}), rundir)
    by_file: dict[str, Counter[int]] = {}
    for id, times in ids(rundir, "train").items():
        by_file.setdefault(id.split(":")[0], Counter())[times] += 1
    assert by_file["once.jsonl"].keys() == by_file["half.jsonl"].keys() == {1}
    assert by_file["more.jsonl"].keys() == {2, 3}
    half, more, held = report["weights"]
    assert half["drawn"] == by_file["half.jsonl"][1]
    assert abs(half["drawn"] - half["rows"] / 2) < 40
    assert abs(more["drawn"] - more["rows"] * 2.25) < 40
    assert held == {"dataset": 3, "weight": 3.0, "rows": 0, "drawn": 0}
    assert set(ids(rundir, "validation").values()) == {1}
    assert report["rows"]["dropped"] == {"weight": half["rows"] - half["drawn"]}
    printed = "\n".join(datasummary.lines(report))
    assert f"datasets.0.weight 0.5: {half['rows']} rows drawn {half['drawn']} times" in printed


def test_a_row_keeps_its_draw_when_others_come(make_recipe: Make, tmp_path: Path) -> None:
    found = []
    for count in (200, 260):
        folder = RunDir(tmp_path / str(count))
        data = [lines(tmp_path / "rows.jsonl", count, weight=0.5)]
        run(make_recipe(datasets=data, split={"validation": 0.1}), folder)
        old = {f"rows.jsonl:{i}" for i in range(200)}
        found.append([set(ids(folder, name)) & old for name in ("train", "validation")])
    assert found[0] == found[1]


@pytest.mark.parametrize("by", ["kind", "kind in 'cd'"])
def test_balance_of_training_rows(make_recipe: Make, rundir: RunDir, tmp_path: Path, by: str) -> None:
    data = [lines(tmp_path / "a.jsonl", 160)]
    split = {"validation": 0.25, "stratify_by": "kind", "balance": {"by": by, "max_ratio": 1.5}}
    report = run(make_recipe(datasets=data, split=split), rundir)
    counts = [value["train"] for value in report["balance"][by].values()]
    assert max(counts) == int(1.5 * min(counts))
    assert [value["validation"] for value in report["balance"]["kind"].values()] == [20, 10, 5, 5]
    assert report["rows"]["dropped"] == {"balance": 120 - sum(counts)}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60), st.floats(1, 4))
def test_balance_takes_no_more_than_it_must(rows: list[tuple[int, int]], ratio: float) -> None:
    classes, times = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    exact = np.arange(2 * len(rows), dtype=np.uint64).reshape(-1, 2)
    if not times.any():
        return
    made = times.copy()
    draw.balance(Balance("x", ratio), 1, exact, np.arange(len(rows)), classes.astype(np.int32), made)
    before, after = np.bincount(classes, times, 4), np.bincount(classes, made, 4)
    smallest = before[before > 0].min()
    assert (made <= times).all()
    assert (after == np.minimum(before, np.floor(ratio * smallest))).all()
    for each in range(4):  # no row goes entirely while another of its class still stands twice
        mine = (classes == each) & (times > 0)
        assert not mine.any() or made[mine].max() <= 1 or made[mine].min() > 0


def test_nothing_is_drawn(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    data = [lines(tmp_path / "a.jsonl", 5, weight=1e-9)]
    with pytest.raises(DataError, match="no row is left to train on: weight 4"):
        run(make_recipe(datasets=data, split={"validation": 1}), rundir)


def test_where_and_route_are_counted(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    route = {"when": "kind == 'b'", "take": "rest"}
    data = [lines(tmp_path / "a.jsonl", 80, where="kind != 'a'", route=route)]
    report = run(make_recipe(datasets=data), rundir)
    assert report["where"] == [{"dataset": 0, "where": "kind != 'a'", "kept": 40, "left_out": 40}]
    assert report["routes"] == [{"dataset": 0, **route, "match": 20, "rest": 20}]
    assert report["rows"]["dropped"] == {"where": 40, "route": 20}
    printed = "\n".join(datasummary.lines(report))
    assert "datasets.0.where keeps 40 rows and leaves out 40" in printed
    assert "datasets.0.route: 20 rows match, 20 do not; rest is taken" in printed
    for when, side in (("kind == 'x'", "none"), ("kind != 'x'", "all")):
        data = [lines(tmp_path / "a.jsonl", 80, route={"when": when})]
        with pytest.raises(DataError, match=f"datasets.0.route: {side} of 80 rows match: kind .= 'x'"):
            run(make_recipe(datasets=data), rundir)


def test_redacted_texts_are_counted_and_written_nowhere(
    make_recipe: Make, rundir: RunDir, tmp_path: Path, cache: Path
) -> None:
    data = [lines(tmp_path / "a.jsonl", 20, redact=[{"pattern": "It", "replace": "This"}])]
    report = run(make_recipe(datasets=data), rundir)
    assert report["redacted"] == [{"dataset": 0, "pattern": "It", "replaced": 20}]
    assert not any(b"It is" in file.read_bytes() for file in cache.rglob("*") if file.is_file())


def test_cut_tokens_and_loss_in_the_report(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    data = [lines(tmp_path / "a.jsonl", 40)]
    report = run(make_recipe(datasets=data, prompt={"sequence_len": 22}), rundir)
    train = report["splits"]["train"]
    assert train["truncated_share"] == 1.0
    assert train["tokens"]["max"] == 22
    assert train["cut_tokens"] >= train["rows"]
    made = store.load(rundir).split("train")["loss_tokens"]
    assert train["loss"] == {"p50": sorted(made)[-(-len(made) // 2) - 1], "p95": train["loss"]["p95"], "max": max(made)}
    assert f"30 rows (100%) are cut to prompt.sequence_len and lose {train['cut_tokens']} tokens" in "\n".join(
        datasummary.lines(report)
    )


def test_group_by_an_expression(make_recipe: Make, rundir: RunDir, tmp_path: Path) -> None:
    split = {"validation": 0.4, "group_by": "prompt.split()[2] | replace('?', '') | int % 9", "stratify_by": "kind"}
    run(make_recipe(datasets=[lines(tmp_path / "a.jsonl", 180)], split=split), rundir)
    sides = [{int(id.split(":")[1]) % 9 for id in ids(rundir, name)} for name in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 9
    with pytest.raises(DataError, match=r"split.group_by: 'promt' is undefined"):
        run(make_recipe(datasets=[lines(tmp_path / "a.jsonl", 9)], split={"group_by": "promt ~ ''"}), rundir)


def test_equal_digests() -> None:
    found = np.array([[1, 2], [2, 1], [1, 2], [0, 9], [2, 1], [1, 3]], np.uint64)
    assert same(found).tolist() == [1, 3, 1, 0, 3, 2]
    assert first(found).tolist() == [True, True, False, True, False, True]
    assert same(found[:0]).tolist() == []
