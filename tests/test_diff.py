"""What differs between two recipes: by meaning, whichever way it is written, and seen from either side."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run import cli, diff, diffalign, diffrows, document, overrides, resources
from sysml_run.diff import ABSENT, Diff, Side
from sysml_run.machine import Machine
from sysml_run.resolve import resolve

MACHINE = Machine(4, 16 * 2**30, "CPU", True, "this processor has avx512_bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets:
  - {path: /data/rows.jsonl, type: messages}
lora: {r: 8}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {num_epochs: 1, micro_batch_size: 8}
"""
NAMES = tuple(sorted(path.name for path in resources.recipes().glob("*.yaml")))


def side(*assignments: str, text: str = RECIPE, name: str = "one.yaml", hardware: str | None = None) -> Side:
    read = overrides.apply(document.parse(text, name), assignments)
    read = overrides.swap_hardware(read, hardware) if hardware else read
    return diff.side(name, name, resolve(read), MACHINE)


def changes(found: Diff) -> dict[str, tuple[Any, Any]]:
    return {change["pointer"]: (change["from"], change["to"]) for change in map(diffrows.plain, found.changed)}


def sources(found: Diff) -> dict[str, tuple[str | None, str | None]]:
    return {one["pointer"]: (one["from_source"], one["to_source"]) for one in map(diffrows.plain, found.changed)}


def derived(found: Diff) -> dict[str, tuple[Any, Any]]:
    return {item.name: (item.before, item.after) for item in found.derived}


def test_a_changed_value_with_its_sources_and_what_follows() -> None:
    found = diff.compare(side(), side("training.micro_batch_size=2", "optimizer.learning_rate=5e-4"))
    assert changes(found) == {"optimizer.learning_rate": (1e-3, 5e-4), "training.micro_batch_size": (8, 2)}
    assert sources(found)["training.micro_batch_size"] == ("one.yaml:8", "--set training.micro_batch_size=2")
    assert derived(found) == {
        "batch.micro": (8, 2),
        "batch.effective": (8, 2),
        "learning_rate.start": (1e-3, 5e-4),
        "learning_rate.after_warmup": (1e-3, 5e-4),
        "tokens_per_step.at_most": (16384, 4096),
    }


def test_what_the_plan_derives_is_compared_too() -> None:
    both = "training.effective_batch_size=16"
    found = diff.compare(side(both), side(both, "training.micro_batch_size=4"))
    assert changes(found)["training.gradient_accumulation_steps"] == (2, 4)
    reason = "derived: effective_batch_size 16 / 4 rows a step over all devices"
    assert sources(found)["training.gradient_accumulation_steps"][1] == reason
    assert "batch.effective" not in derived(found)
    assert derived(found)["batch.accumulation"] == (2, 4)


def test_what_comes_to_the_same_here_is_still_written_otherwise() -> None:
    found = diff.compare(side(), side("hardware={accelerator: cpu, precision: bf16}"))
    assert changes(found) == {"hardware.precision": ("auto", "bf16")}
    assert sources(found)["hardware.precision"] == ("default", "--set hardware={accelerator: cpu, precision: bf16}")
    assert found.derived == ()


def test_a_section_that_one_side_lacks() -> None:
    found = diff.compare(side("lora=null"), side())
    assert changes(found)["lora.r"] == (None, 8)
    assert sources(found)["lora.r"] == ("--set lora=null", "one.yaml:6")
    assert {name.partition(".")[0] for name in changes(found)} == {"lora"}
    assert "lora" not in changes(found)
    (row,) = diffrows.changes(found)
    assert (row.name, row.before, row.before_source, row.after_source) == ("lora", "none", "--set lora=null", "B:6")
    assert row.after == "r=8 and 5 defaults"
    (row,) = diffrows.changes(diff.compare(side("lora=null"), side("lora={}")))
    assert row.after.startswith("r=16, alpha=32, dropout=0, target_modules=all-linear, ")
    total = derived(found)["parameters.trainable"][0]
    assert derived(found)["parameters.trainable"] == (total, 16384)
    assert derived(found)["parameters.adapter_bytes"] == (0, 65536)
    assert "parameters.total" not in derived(found)


def test_broken_files_of_a_model_say_nothing_of_the_recipes(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/config.json").write_text("{")
    one, two = (side(f"model.base_model={tmp_path}/words", f"lora.r={r}") for r in (4, 8))
    found = diff.compare(one, two)
    assert changes(found) == {"lora.r": (4, 8)}
    assert found.facts[0]["parameters.total"] is None
    assert found.derived == ()


def test_another_branch_of_a_section() -> None:
    found = diff.compare(side(hardware="cpu"), side(hardware="gpu:2x8xh100-80gb"))
    assert changes(found)["hardware.threads"] == (4, None)
    assert sources(found)["hardware.threads"] == ("derived: 4 cores for 1 process(es)", None)
    assert changes(found)["hardware.nodes"] == (None, 2)
    rows = {row.name: row for row in diffrows.changes(found)}
    assert (rows["hardware.devices"].before, rows["hardware.devices"].after) == ("1", "8")
    assert rows["hardware"].before == "threads=4"
    assert rows["hardware"].after == "type=h100-80gb, nodes=2 and 1 default"
    assert (rows["hardware"].before_source, rows["hardware"].after_source) == (
        "derived",
        "--hardware gpu:2x8xh100-80gb",
    )
    assert derived(found)["batch.world_size"] == (1, 16)


def test_lists_of_objects_by_index_and_other_lists_whole() -> None:
    two = "datasets=[{path: /data/rows.jsonl, type: messages}, {path: /b.jsonl, type: messages, where: 'true'}]"
    found = diff.compare(side(), side(two, "optimizer.betas=[0.8, 0.9]"))
    assert changes(found)["datasets.1.path"] == (None, "/b.jsonl")
    assert changes(found)["optimizer.betas"] == ([0.9, 0.999], [0.8, 0.9])
    assert sources(found)["optimizer.betas"] == ("default", "--set optimizer.betas=[0.8, 0.9]")
    assert not any(name.startswith("datasets.0") for name in changes(found))
    rows = {row.name: row for row in diffrows.changes(found)}
    assert rows["datasets.1"].before == "none"
    assert rows["datasets.1"].after.startswith("path=/b.jsonl, type=messages, where=true and ")


@pytest.mark.parametrize(
    ("before", "after", "row"),
    [
        ("[]", "[json_valid]", ("evaluation.metrics", "[]", "[json_valid]")),
        ("[json_valid]", "[{field: a, metric: mae}]", ("evaluation.metrics.0", "json_valid", "field=a, metric=mae")),
        (
            "[json_valid]",
            "[json_valid, {field: a, metric: mae}]",
            ("evaluation.metrics.1", "none", "field=a, metric=mae"),
        ),
        (
            "[{field: a, metric: mae}]",
            "[{field: a, metric: mae}, json_valid]",
            ("evaluation.metrics.1", "-", "json_valid"),
        ),
        ("[{field: a, metric: mae}]", "[]", ("evaluation.metrics.0", "field=a, metric=mae", "none")),
    ],
)
def test_lists_that_hold_words_and_objects(before: str, after: str, row: tuple[str, str, str]) -> None:
    found = diff.compare(side(f"evaluation.metrics={before}"), side(f"evaluation.metrics={after}"))
    assert [(one.name, one.before, one.after) for one in diffrows.changes(found)] == [row]


DATASETS = {name: f"{{path: /{name}.jsonl, type: messages}}" for name in "abcd"}
CHANGED = "{path: /a.jsonl, type: messages, where: b == 1, max_rows: 3, drop_errors: true}"


def listed(*names: str) -> Side:
    return side(f"datasets=[{', '.join(DATASETS.get(name, name) for name in names)}]")


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("ab", "cab", ["datasets.0: none, path=/c.jsonl"]),
        ("cab", "ab", ["datasets.0: path=/c.jsonl, none"]),
        ("abc", "bcd", ["datasets.0: path=/a.jsonl, none", "datasets.2: none, path=/d.jsonl"]),
        ("acb", "bd", ["datasets.0: path=/a.jsonl, none", "datasets.1: path=/c.jsonl, path=/d.jsonl"]),
        ("ab", "ba", ["datasets.0: path=/a.jsonl, none", "datasets.1: none, path=/a.jsonl"]),
        ("ab", "ac", ["datasets.1.path: /b.jsonl, /c.jsonl"]),
    ],
)
def test_an_item_in_front_leaves_the_others_alone(before: str, after: str, shown: list[str]) -> None:
    rows = diffrows.changes(diff.compare(listed(*before), listed(*after)))
    told = [f"{row.name}: {row.before.partition(', ')[0]}, {row.after.partition(', ')[0]}" for row in rows]
    assert told == shown


def test_an_item_that_has_moved_and_changed_is_found_by_its_required_keys() -> None:
    """The new one in front has more keys in common with the old one than what the old one has become."""
    found = diff.compare(listed("a"), listed("b", CHANGED))
    names = {row.name: (row.before, row.after) for row in diffrows.changes(found)}
    assert names.pop("datasets.0")[0] == "none"
    assert names["datasets.1.max_rows (A: datasets.0.max_rows)"] == ("none", "3")
    assert {change["from_pointer"] for change in map(diffrows.plain, found.changed)} >= {"datasets.0.where"}
    assert sources(found)["datasets.1.max_rows"][0] == "default"
    back = diff.compare(listed("b", CHANGED), listed("a"))
    assert "datasets.0.max_rows (A: datasets.1.max_rows)" in {row.name for row in diffrows.changes(back)}


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("lora.target_modules", "[q_proj, v_proj]", "[v_proj, q_proj]"),
        ("tracking", "[tensorboard, wandb]", "[wandb, tensorboard]"),
        ("evaluation.metrics", "[{field: a, metric: mae}, json_valid]", "[json_valid, {field: a, metric: mae}]"),
        ("quantization.export", "[{method: gptq}, {method: gguf}]", "[{method: gguf}, {method: gptq}]"),
    ],
)
def test_sets_have_no_order(key: str, before: str, after: str) -> None:
    assert diff.compare(side(f"{key}={before}"), side(f"{key}={after}")).changed == ()
    ordered = diff.compare(side("optimizer.betas=[0.8, 0.9]"), side("optimizer.betas=[0.9, 0.8]"))
    assert changes(ordered) == {"optimizer.betas": ([0.8, 0.9], [0.9, 0.8])}


def test_of_a_set_only_what_differs_is_shown() -> None:
    one, two = (
        "[{field: a, metric: mae}, json_valid]",
        "[json_valid, {field: a, metric: f1_macro}, {field: b, metric: mae}]",
    )
    found = diff.compare(side(f"evaluation.metrics={one}"), side(f"evaluation.metrics={two}"))
    shown = [(row.name, row.before, row.after) for row in diffrows.changes(found)]
    assert shown == [
        ("evaluation.metrics.1.metric (A: evaluation.metrics.0.metric)", "mae", "f1_macro"),
        ("evaluation.metrics.2", "none", "field=b, metric=mae"),
    ]
    words = diff.compare(side("tracking=[wandb]"), side("tracking=[wandb, mlflow]"))
    assert changes(words) == {"tracking": (["wandb"], ["wandb", "mlflow"])}


def test_very_long_lists_are_compared_place_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffalign, "MOST", 3)
    assert len(diff.compare(listed("a", "b"), listed("c", "a", "b")).changed) > 3
    assert diffalign.places([1, 2], [3, 4, 2], ("datasets",)) == [(0, 0), (1, 1), (diffalign.NOWHERE, 2)]


def test_nulls_of_a_branch_alone_are_no_row() -> None:
    bare = ("hardware={accelerator: gpu}", "hardware={accelerator: tpu, topology: v3-8, precision: bf16}")
    rows = {row.name: row.before for row in diffrows.changes(diff.compare(*map(side, bare)))}
    assert "type" not in rows["hardware"]
    assert changes(diff.compare(*map(side, bare)))["hardware.devices"] == (1, None)


def test_absent_is_told_from_null() -> None:
    assert repr(ABSENT) == "ABSENT"
    assert diffrows.value(ABSENT, ("lora",)) == "-"
    assert diffrows.value(None, ("lora",)) == "none"
    assert diffrows.value("none", ("name",)) == '"none"'
    assert diffrows.value("", ("name",)) == '""'
    assert diffrows.value(1e300, ("seed",)) == "1e+300"


def test_sizes() -> None:
    wanted = {999: "999 bytes", 1000: "1.00 kB", 1_500_000: "1.50 MB", 46_702_792_704: "46.70 GB"}
    assert {number: diffrows.size(number) for number in wanted} == wanted


# Spellings: the same recipe as JSON, in another order, with every default written out.


def shuffled(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict):
        names = draw.sample(list(value), len(value))
        return {name: shuffled(value[name], draw) for name in names}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


def shipped(name: str, text: str | None = None) -> Side:
    path = resources.recipes() / name
    read = document.parse(path.read_text() if text is None else text, str(path))
    return diff.side(name, name, resolve(read), MACHINE)


@pytest.fixture(autouse=True)
def nothing_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_recipe_in_other_words_does_not_differ(name: str) -> None:
    whole = shipped(name)
    found = diff.compare(whole, whole)
    assert (found.changed, found.derived) == ((), ())
    plain = document.parse((resources.recipes() / name).read_text(), name).value
    for seed in range(2):
        order = random.Random(seed)
        for values in (plain, whole.resolved.values):
            texts = [json.dumps(shuffled(values, order)), yaml.safe_dump(shuffled(values, order), sort_keys=False)]
            for text in texts:
                again = shipped(name, f"# {order.random()}\n{text}")
                assert diff.compare(whole, again).changed == ()


def test_spellings_of_a_path_do_not_differ(tmp_path: Path) -> None:
    text = RECIPE.replace("/data/rows.jsonl", "{}")
    for spelling in ("./a.jsonl", "b/../a.jsonl", str(tmp_path / "a.jsonl")):
        one = side(text=text.replace("{}", "a.jsonl"), name=str(tmp_path / "one.yaml"))
        other = side(text=text.replace("{}", spelling), name=str(tmp_path / "one.yaml"))
        assert diff.compare(one, other).changed == ()


CHANGES = {
    "seed": st.integers(0, 9),
    "lora": st.sampled_from(["null", "{}", "{r: 4}", "{r: 4, target_modules: [q_proj]}"]),
    "optimizer.weight_decay": st.sampled_from(["0.01", "0.1"]),
    "training.effective_batch_size": st.sampled_from(["null", "8", "16"]),
    "evaluation.metrics": st.sampled_from(["[]", "[json_valid]", "[{field: a, metric: mae}, json_valid]"]),
    "hardware": st.sampled_from(["{accelerator: cpu}", "{accelerator: gpu, devices: 2}"]),
    "prompt.template": st.sampled_from(["tokenizer", "'{{ a }}'", '"{{ a }}\\nb|`c`"']),
}
SIDES = st.fixed_dictionaries({}, optional=CHANGES).map(lambda chosen: [f"{key}={chosen[key]}" for key in chosen])


@settings(deadline=None, max_examples=60)
@given(before=SIDES, after=SIDES)
def test_mirrored(before: list[str], after: list[str]) -> None:
    one, other = side(*before), side(*after)
    there, back = diff.compare(one, other), diff.compare(other, one)
    assert changes(there) == {name: (new, old) for name, (old, new) in changes(back).items()}
    assert sources(there) == {name: (new, old) for name, (old, new) in sources(back).items()}
    assert derived(there) == {name: (new, old) for name, (old, new) in derived(back).items()}
    assert diff.compare(one, side(*before)).changed == ()
    shown = [row.name for row in diffrows.changes(there)]
    assert len(shown) == len(set(shown))
    assert bool(shown) == bool(changes(there))


ITEMS = st.lists(st.fixed_dictionaries({"path": st.sampled_from("ab"), "weight": st.integers(1, 2)}), max_size=5)


@settings(deadline=None, max_examples=200)
@given(old=ITEMS, new=ITEMS, at=st.sampled_from([("datasets",), ("quantization", "export")]))
def test_every_item_has_one_place(old: list[Any], new: list[Any], at: tuple[str, ...]) -> None:
    found, back = diffalign.places(old, new, at), diffalign.places(new, old, at)
    for number, length in ((0, len(old)), (1, len(new))):
        assert sorted(ends[number] for ends in found if ends[number] >= 0) == list(range(length))
    assert all(max(ends) >= 0 for ends in found)
    assert diffalign.places(old, old, at) == [(number, number) for number in range(len(old))]
    assert sum(old[one] == new[two] for one, two in found if min(one, two) >= 0) == (
        sum(new[one] == old[two] for one, two in back if min(one, two) >= 0)
    )


# The command.


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "one.yaml").write_text(RECIPE)
    (tmp_path / "two.yaml").write_text(RECIPE.replace("name: one", "name: two"))
    (tmp_path / "bad.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    (tmp_path / "worse.yaml").write_text(RECIPE.replace("num_epochs: 1", "num_epochs: 1, max_steps: 2"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_json_holds_what_it_promises(project: Path, capsys: Any) -> None:
    assert cli.main(["diff", "one.yaml", "two.yaml", "--set", "lora.r=4", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["from"], shown["to"]) == ("one.yaml", "two.yaml --set lora.r=4")
    names, labels = ("pointer", "from_pointer", "from", "to"), ("from_source", "to_source")
    assert [shown["changed"][0][name] for name in names] == ["name", "name", "one", "two"]
    assert [shown["changed"][0][name] for name in labels] == ["one.yaml:2", "two.yaml:2"]
    assert all(set(change) == {*names, *labels} for change in shown["changed"])
    assert {"name": "parameters.trainable", "from": 16384, "to": 8192} in shown["derived"]
    assert all(set(item) == {"name", "from", "to"} and item["from"] != item["to"] for item in shown["derived"])


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_no_difference_is_said_and_is_no_failure(project: Path, form: str, capsys: Any) -> None:
    assert cli.main(["diff", "one.yaml", "one.yaml", "--format", form]) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("\n\nno difference\n")
    assert shown.err == ""


def test_without_a_second_recipe_the_first_is_changed(project: Path, capsys: Any) -> None:
    assert cli.main(["diff", "one.yaml", "--hardware", "gpu:8", "--set", "seed=1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("A  one.yaml\nB  one.yaml --set seed=1 --hardware gpu:8\n")
    assert "\n  seed " in shown
    assert "\n  hardware.accelerator " in shown


def test_the_problems_of_both_are_told(project: Path, capsys: Any) -> None:
    assert cli.main(["diff", "bad.yaml", "worse.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "bad.yaml:7:41: optimizer.learning_rate: expected a number" in shown.err
    assert "worse.yaml:8:" in shown.err
    assert cli.main(["diff", "bad.yaml"]) == 2
    assert capsys.readouterr().err.count("expected a number") == 1
    assert cli.main(["diff", "one.yaml", "--set", "seed"]) == 2
    assert cli.main(["diff", "absent.yaml"]) == 2
    assert "absent.yaml: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_a_file_that_only_one_side_has(project: Path, form: str, capsys: Any) -> None:
    wanted = {"text": "{} is {}\n", "markdown": "**`{}` is {}**\n"}
    for arguments, word in (([os.devnull, "one.yaml"], "new"), (["one.yaml", os.devnull], "deleted")):
        assert cli.main(["diff", *arguments, "--format", form]) == 0
        shown = capsys.readouterr().out
        if form == "json":
            ends = [json.loads(shown)[name] for name in ("from", "to")]
            assert ends == ([None, "one.yaml"] if word == "new" else ["one.yaml", None])
        else:
            assert shown == wanted[form].format("one.yaml", word)
    assert cli.main(["diff", "bad.yaml", os.devnull]) == 0, "what is gone need not have been valid"
    assert cli.main(["diff", os.devnull, "bad.yaml"]) == 2


def test_markdown_names_what_cannot_be_compared(project: Path, capsys: Any) -> None:
    for arguments in (["bad.yaml", "one.yaml"], [os.devnull, "bad.yaml"], ["one.yaml@nowhere", "one.yaml"]):
        assert cli.main(["diff", *arguments, "--format", "markdown"]) == 2
        shown = capsys.readouterr()
        assert shown.out == f"**`{arguments[0]}` → `{arguments[1]}` cannot be compared; the log says why**\n"
        assert shown.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-", "--set", "seed=1"], 0, "seed  42  1  default  --set seed=1"),
        (["-", "two.yaml"], 0, "name  one  two  A:2   B:2"),
        (["one.yaml", "-"], 0, "no difference"),
        (["-", "-"], 0, "no difference"),
        (["-", "bad.yaml"], 2, "bad.yaml:7:41"),
    ],
)
def test_standard_input(
    project: Path, arguments: list[str], code: int, said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(RECIPE.encode())))
    assert cli.main(["diff", *arguments]) == code
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
