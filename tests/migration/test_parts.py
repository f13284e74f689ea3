"""The pieces: values, names, paths, templates, YAML text, whose file it is, and the names that schemas know."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sysml_run import document, schema
from sysml_run.errors import UsageError
from sysml_run.migration import (
    axolotl,
    detect,
    fit,
    llamafactory,
    names,
    targets,
    templates,
    torchtune,
    trl,
    values,
    write,
)
from sysml_run.migration.ledger import Entry
from sysml_run.migration.paths import Folders


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (True, True),
        ("yes", True),
        ("On", True),
        ("off", False),
        ("true", True),
        ("auto", None),
        (1, None),
        (None, None),
    ],
)
def test_truth(value: object, wanted: bool | None) -> None:
    assert values.truth(value) is wanted


@pytest.mark.parametrize(
    ("value", "wanted"), [(3, 3), ("2e-4", 2e-4), ("1_000", 1000), ("x", None), (True, None), (None, None), ([1], None)]
)
def test_number(value: object, wanted: float | None) -> None:
    assert values.number(value) == wanted


@pytest.mark.parametrize(
    ("target", "value", "wanted"),
    [
        (("training", "micro_batch_size"), 4.0, 4),
        (("training", "num_epochs"), "3", 3),
        (("training", "gradient_checkpointing"), "yes", True),
        (("model", "revision"), "3", "3"),
        (("optimizer", "learning_rate"), "fast", "fast"),
    ],
)
def test_fitted(target: tuple[str, ...], value: object, wanted: object) -> None:
    made = values.fitted(target, value)
    assert (made, type(made)) == (wanted, type(wanted))


@pytest.mark.parametrize("tool", names.FILES)
def test_known_names(tool: str) -> None:
    known = names.load(tool)
    assert len(known.known) > 150
    assert all(" " not in name for name in known.known)
    for name, why in known.reasons.items():
        assert why == why.strip(), name
        assert not why.endswith("."), name


def test_axolotl_has_all_its_keys() -> None:
    top = [name for name in names.load("axolotl").known if "." not in name]
    assert len(top) >= 388


def test_unknown_parts() -> None:
    known = names.load("axolotl")
    assert known.unknown("sequence_len") is None
    assert known.unknown("sequence_length") == "sequence_length"
    assert known.unknown("datasets.pth") == "datasets.pth"
    assert known.unknown("datasets.type.fmt") == "datasets.type.fmt"
    assert known.unknown("deepspeed.anything.below") is None
    assert known.nearest("sequence_lenn") == "sequence_len"
    assert known.nearest("zzzz") is None
    assert known.why("no_such_key") is None
    assert known.why("lora_qkv_kernel") == known.why("liger_rope")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("base_model: a\nmicro_batch_size: 1", "axolotl"),
        ("model_name_or_path: a\nfinetuning_type: lora\ncutoff_len: 1", "llama-factory"),
        ("model_name_or_path: a\ndataset_name: b\nuse_peft: true", "trl"),
        ("model: {_component_: a}", "torchtune"),
        ("list: [{_component_: a}]", "torchtune"),
    ],
)
def test_detect(text: str, wanted: str) -> None:
    assert detect.tool(document.parse(text, "it").value, "it") == wanted


def test_marks_are_on_known_names() -> None:
    for tool in names.FILES:
        known = names.load(tool)
        assert len(known.marked) > 5
        assert known.marked <= known.known
    assert names.load("axolotl").mark("special_tokens.eos_token") == "special_tokens.eos_token"
    assert names.load("axolotl").mark("special_tokens.pad_token") is None
    assert names.load("torchtune").mark("datasets.transform._component_") == "datasets"


@pytest.mark.parametrize(("value", "wanted"), [(0, True), (False, True), ("no", True), ("none", True), (None, True)])
def test_off(value: object, wanted: bool) -> None:
    assert values.off(value) is wanted
    assert not any(values.off(one) for one in (1, True, "text", [0], {}))


def test_names_of_the_schema() -> None:
    assert "tensorboard" in values.words(("tracking",))
    assert "cosine" in values.words(("optimizer", "lr_scheduler"))
    assert values.words(("training", "num_epochs")) == ()


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        (r".*\.(q_proj|v_proj)$", (["q_proj", "v_proj"], True)),
        (r"^.*\.(?:q|k)_proj", (["q_proj", "k_proj"], True)),
        (r".*[qv]_proj", (["q_proj", "v_proj"], True)),
        (r"(.*\.)?down_proj", (["down_proj"], True)),
        (r".*q_proj|.*v_proj", (["q_proj", "v_proj"], True)),
        (r"model.layers.[\d]+.(mlp|self_attn).(up|down|q)_proj", (["up_proj", "down_proj", "q_proj"], False)),
        (r"model\.layers\.\d+\.self_attn\.(q_proj|v_proj)", (["q_proj", "v_proj"], False)),
        (r".*self_attn\.(q_proj)", (["q_proj"], False)),
        (r"model\.layers\.[0-9]\.self_attn\.q_proj", None),
        (r"model\.layers\.(0|1)\.self_attn\.q_proj", None),
        (r".*\.(?!lm_head).*", None),
        (r".*_proj.*", None),
        (r".*\.(q_proj", None),
    ],
)
def test_regular_expressions_of_layers(expression: str, wanted: object) -> None:
    assert targets.expanded(expression) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "may be a configuration of axolotl or llama-factory or trl"),
        ("nothing: 1", "no key in it is one of axolotl"),
        ("version: 1\nmodel: {}\noptimizer: {}\ntraining: {}", "is a recipe of sysml-run already"),
        ("[1]", "expected keys and values"),
        ("{}", "expected keys and values"),
    ],
)
def test_detect_refuses(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        detect.tool(document.parse(text, "it").value, "it")
    assert error.value.hint


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "near.jsonl").touch()
    (tmp_path / "started.jsonl").touch()
    beside = Folders(tmp_path / "configs", tmp_path / "configs")
    away = Folders(tmp_path / "configs", tmp_path / "recipes")
    assert beside.data("near.jsonl") == "near.jsonl"
    assert away.data("near.jsonl") == "../configs/near.jsonl"
    assert beside.data("started.jsonl") == "../started.jsonl"
    assert away.data("gone.jsonl") == "../configs/gone.jsonl"
    assert away.data("/there/a.jsonl") == "/there/a.jsonl"
    assert beside.data("owner/name") == "hub:owner/name"
    assert away.data("./owner") == "../configs/owner"
    assert beside.data("squad") == "squad"
    assert away.model("owner/name") == "owner/name"
    assert away.model("./models/a") == "../configs/models/a"


def rendered(text: str, **row: Any) -> str:
    return ImmutableSandboxedEnvironment(keep_trailing_newline=True).from_string(text).render(row=row, **row)


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.sampled_from("{}%#\n"), max_size=20))
def test_literal_text_is_printed_as_it_is(text: str) -> None:
    assert rendered(templates.literal(text) + "{{ x }}", x="end") == text + "end"


def test_format_strings() -> None:
    made = templates.formatted("{{{q}}} {{% no {q}", {"q": templates.field("my field")})
    assert rendered(made, **{"my field": "1"}) == "{1} {% no 1"
    with pytest.raises(ValueError, match="is none of q"):
        templates.formatted("{other}", {"q": "q"})
    with pytest.raises(ValueError, match="Single"):
        templates.formatted("{", {})


def test_fields_and_choices() -> None:
    assert templates.field("title") == "title"
    assert templates.field("class") == 'row["class"]'
    made = templates.either("more", "with", "without")
    assert (rendered(made, more="x"), rendered(made, more=""), rendered(made)) == ("with", "without", "without")
    assert templates.either("more", "same", "same") == "same"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT.filter(bool), below, max_size=2),
    max_leaves=5,
)


@given(VALUE)
def test_what_is_written_is_read_again(value: object) -> None:
    entries = {("prompt", "template"): Entry(value, "an origin"), ("datasets", 0, "map", "prompt"): Entry(value, "")}
    made = document.parse(write.recipe(entries, {}), "it").value
    assert made == {"prompt": {"template": value}, "datasets": [{"map": {"prompt": value}}]}
    assert type(made["prompt"]["template"]) is type(value)


@given(TEXT)
def test_comments_stay_comments(words: str) -> None:
    entries = {("seed",): Entry(1, words), ("model", "revision"): Entry("x", words)}
    text = "\n".join(["# a", *write.comment(words), write.recipe(entries, {("model",): words})])
    assert document.parse(text, "it").value == {"seed": 1, "model": {"revision": "x"}}


def test_numbers_that_are_none() -> None:
    assert [write.scalar(value) for value in (math.nan, math.inf, -math.inf)] == [".nan", ".inf", "-.inf"]


def test_order_and_layout() -> None:
    entries = {
        ("tracking",): Entry(["wandb"], "t"),
        ("model", "base_model"): Entry("a/b", "m"),
        ("prompt", "template"): Entry("one\ntwo\nthree\n\n", "p"),
        ("version",): Entry(1, ""),
        ("model", "of_mine"): Entry(1, "x" * 120),
    }
    assert write.recipe(entries, {("model",): "s"}) == (
        "version: 1\n\nmodel:                                      # s\n"
        "  base_model: a/b                           # m\n"
        f"  # {'x' * 116}\n  #     {'x' * 4}\n  of_mine: 1\n"
        "\nprompt:\n  template: |+                              # p\n    one\n    two\n    three\n\n"
        "\ntracking: [wandb]                           # t\n"
    )


@pytest.mark.parametrize(
    ("stem", "name"),
    [("My Config (2)", "my-config-2"), ("__", "migrated"), ("a" * 200, "a" * 100), ("ok_1.2", "ok_1.2")],
)
def test_names_of_recipes(stem: str, name: str) -> None:
    assert fit.recipe_name(stem) == name


def known_as() -> list[tuple[str, str, tuple[str, ...]]]:
    """Tool, its name and our key, for every annotation of the schemas."""
    found = {
        (tool, name, path)
        for path, node in schema.walk(schema.load())
        for tool, said in node.get("x-known-as", {}).items()
        for name in said
    }
    return sorted(found)


def test_a_name_is_known_for_one_key() -> None:
    for (tool, name), rows in itertools.groupby(known_as(), key=lambda row: row[:2]):
        assert tool == "habit" or len({row[2] for row in rows}) == 1, (tool, name)


def test_known_names_are_the_tools_own() -> None:
    assert {tool for tool, _, _ in known_as()} == {*names.FILES, "habit"}
    for tool, name, path in known_as():
        assert tool == "habit" or name in names.load(tool).known, (tool, name, path)


def test_what_migrate_carries_the_schemas_know() -> None:
    tables: dict[str, list[dict[str, Any]]] = {
        "axolotl": [axolotl.PLAIN, axolotl.ADAPTER],
        "llama-factory": [llamafactory.PLAIN, llamafactory.ADAPTER],
        "trl": [trl.PLAIN, {name: target for name, (target, _) in trl.ADAPTER.items()}],
        "torchtune": [torchtune.PLAIN, {f"model.{name}": target for name, target in torchtune.ADAPTER.items()}],
    }
    known = {(tool, name): ".".join(path) for tool, name, path in known_as()}
    for tool, name, target in [
        (tool, *row) for tool, all_of in tables.items() for one in all_of for row in one.items()
    ]:
        assert known.get((tool, name)) == target, (tool, name)


def test_habitual_names_are_known() -> None:
    known = {name for _, name, _ in known_as()}
    assert known >= {
        *("lr", "rank", "batch_size", "epochs", "max_length", "cutoff_len", "max_seq_len", "max_seq_length"),
        *("model_name_or_path", "model_name", "pretrained_model_name_or_path", "num_train_epochs", "grad_accum"),
        *("report_to", "output_dir", "bf16", "fp16", "load_in_4bit", "load_in_8bit", "gradient_accumulation"),
        *("lora_alpha", "lora_dropout", "lora_target_modules", "sample_packing", "save_total_limit", "eval_steps"),
        *("evals_per_epoch", "clip_grad_norm", "max_grad_norm", "lr_scheduler_type", "warmup", "adam_beta1"),
        *("chat_template", "deepspeed", "num_gpus", "per_device_train_batch_size", "val_set_size", "lora_r"),
    }
