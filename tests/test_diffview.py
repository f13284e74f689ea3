"""How a diff looks: golden texts, and words of a recipe that are not taken for markup or for a terminal's commands."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sysml_run import diff, diffview, document, modelfiles, overrides, prepared, resources
from sysml_run.commands.load import look
from sysml_run.diff import Diff, Side
from sysml_run.machine import Machine
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.rundir import write_json
from sysml_run.worker.data import store

GOLDEN = Path(__file__).parent / "diff"
MACHINE = Machine(4, 16 * 2**30, "CPU", True, "this processor has avx512_bf16", "/venv/bin/python")
BEFORE = """\
version: 1
name: edited
model: {base_model: "tiny:mixtral"}
datasets:
  - path: rows.jsonl
    type: prompt_completion
    map:
      prompt: |-
        You are given an observation.
        {{ prompt }}
        Answer in one word.
lora: {r: 8}
optimizer: {name: adamw, learning_rate: 1e-3, warmup_ratio: 0.1, lr_scheduler: linear}
training: {num_epochs: 2, micro_batch_size: 4}
"""
AFTER = """\
# another order, other comments, one more dataset
training: {num_epochs: 3, effective_batch_size: 16, micro_batch_size: 4, max_grad_norm: 1}
optimizer: {name: lion, learning_rate: 1e-4, warmup_steps: 3}
datasets:
  - path: ./rows.jsonl
    type: prompt_completion
    map:
      prompt: |-
        You are given an observation.
        {{ prompt }}
        Answer in one word, or say that you do not know.
        Do not guess.
  - {path: more.jsonl, type: prompt_completion, where: "prompt != ''"}
model: {base_model: "tiny:mixtral"}
name: edited
version: 1
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with recipes and rows, and nothing prepared or downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(resources.recipes(), "recipes")
    Path("before.yaml").write_text(BEFORE)
    Path("after.yaml").write_text(AFTER)
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    Path("more.jsonl").write_text('{"prompt": "c", "completion": "d"}\n')
    return tmp_path


def side(name: str) -> Side:
    return diff.side(name, name, look(name, (), None)[1], MACHINE)


def prepare(recipe: Recipe, train: int, tokens: int) -> None:
    """Seal a set with these counts under the recipe's key."""
    words = modelfiles.made(modelfiles.tokenizer_name(modelfiles.locate(recipe.model.base_model)))
    words.mkdir(parents=True, exist_ok=True)
    files = prepared.sources(recipe)
    assert files is not None
    key = prepared.key(recipe, files, words)
    report = {"splits": {"train": {"rows": train, "tokens": {"total": tokens}}}}
    write_json(prepared.folder(key) / prepared.REPORT, report)
    store.seal(prepared.folder(key), key, {"train": train, "validation": 40, "test": 0})


def shipped() -> Diff:
    return diff.compare(side("recipes/quickstart.yaml"), side("recipes/generalist_mixtral_lora.yaml"))


def edited() -> Diff:
    before, after = side("before.yaml"), side("after.yaml")
    prepare(before.settled.recipe, 360, 36_000)
    prepare(after.settled.recipe, 790, 94_800)
    return diff.compare(before, after)


DIFFS: dict[str, Callable[[], Diff]] = {"shipped": shipped, "edited": edited}
FORMS = {"txt": diffview.text, "md": diffview.markdown, "json": diffview.as_json}


@pytest.mark.parametrize("name", DIFFS)
@pytest.mark.parametrize("form", ["txt", "md"])
def test_golden(name: str, form: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"{name}.{form}", FORMS[form](DIFFS[name]()))


def test_no_golden_text_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.{form}" for name in DIFFS for form in ("txt", "md")}


@pytest.mark.parametrize("name", DIFFS)
def test_lines_fit_a_terminal(name: str) -> None:
    lines = diffview.text(DIFFS[name]()).splitlines()
    assert max(map(len, lines)) <= diffview.WIDTH
    assert not any(line.endswith(" ") for line in lines)


def other(*assignments: str) -> Diff:
    read = document.parse(BEFORE, "before.yaml")
    changed = resolve(overrides.apply(read, assignments))
    one, two = diff.side("before.yaml", "before.yaml", resolve(read), MACHINE), diff.side("b", "b", changed, MACHINE)
    return diff.compare(one, two)


WORDS = [
    "a | b",
    "`rm`",
    "``",
    "` | `",
    "`<b>` @owner",
    "``` <b> ``",
    "\x1b[31mred",
    "<img src=x>",
    "@owner [a](b) **c**",
    "a\\|b",
    "``` | ```\n```\nend",
    "\x1b[31mred\x1b[0m\r\n| x |",
    "x" * 400,
]


@pytest.mark.parametrize("words", WORDS)
def test_words_of_a_recipe_are_no_markup(words: str) -> None:
    shown = diffview.markdown(other(f"description={json.dumps(words)}", f"optimizer.num_cycles={2}"))
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
    assert "\x1b" not in shown
    outside = re.sub(r"(?ms)^(`{3,})diff\n.*?^\1$", "", shown)
    outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", outside)
    assert "`" not in outside
    assert not set("<@[*") & set(outside.replace("**", "")), outside


@pytest.mark.parametrize("words", WORDS)
def test_words_of_a_recipe_do_not_command_the_terminal(words: str) -> None:
    shown = diffview.text(other(f"description={json.dumps(words)}"))
    assert all(line.isprintable() and len(line) <= diffview.WIDTH for line in shown.splitlines())


def test_json_keeps_them() -> None:
    for words in WORDS:
        shown = json.loads(diffview.as_json(other(f"description={json.dumps(words)}")))
        assert [change["to"] for change in shown["changed"]] == [words]


def test_only_consequences_can_differ() -> None:
    """The same recipe over other rows: `derived` is a table of its own."""
    before = side("before.yaml")
    Path("rows.jsonl").write_text("{}\n")
    found = diff.compare(before, before)
    assert diffview.text(found).endswith("\n\nno difference\n")
    facts = ({**found.facts[0], "data.sha256": "0" * 64}, found.facts[1])
    derived = (diff.Consequence("data.sha256", "0" * 64, found.facts[1]["data.sha256"]),)
    found = dataclasses.replace(found, facts=facts, derived=derived)
    assert "\n\nwhat follows  A " in diffview.text(found)
    assert "changed" not in diffview.text(found) + diffview.markdown(found)
    assert "| data | sha256 000000000000 |" in diffview.markdown(found)
