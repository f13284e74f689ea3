"""Random rows through the whole prepare stage: what a set holds is what the rows said, whatever they said."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run.errors import DataError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json
from sysml_run.worker import prepare
from sysml_run.worker.data import packing, store

Make = Callable[..., Recipe]
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PLAIN += "{% if add_generation_prompt %}assistant: {% endif %}"
AHEAD = "{{ messages[0].content | length }}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
AHEAD += "{% if loop.last and m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
AHEAD += "{% if add_generation_prompt %}[assistant]{% endif %}"
TEXT = st.text(st.characters(exclude_categories=["Cs", "Co", "Cn"], exclude_characters="<"), max_size=40)
SAID = TEXT | st.sampled_from(
    [" x", "x ", "\n\n", "a\n\nb", "🦀", "e\u0301", "中文", "{{ x }}", "process on", "\\", '"']
)
ROWS = st.lists(st.fixed_dictionaries({"prompt": SAID, "completion": SAID | st.none()}), min_size=4, max_size=12)
WHY = {"empty_answer", "empty_prompt", "null_field", "answer_too_long", "too_long", "no_loss_token"}


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[], Path]:
    """A new folder for each example."""
    count = iter(range(10**6))

    def new() -> Path:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return folder

    return new


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=ROWS,
    template=st.sampled_from(["tokenizer", "none", "alpaca", PLAIN, AHEAD]),
    truncation=st.sampled_from(["left", "right", "drop"]),
    length=st.sampled_from([16, 64, 512]),
    packed=st.booleans(),
)
def test_every_row_of_a_set(
    make_recipe: Make,
    folders: Callable[[], Path],
    tokenizer: Any,
    rows: list[dict[str, Any]],
    template: str,
    truncation: str,
    length: int,
    packed: bool,
) -> None:
    """The answer and its end are learned and nothing else is; each row is there once, or counted with its reason."""
    folder = folders()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt = {"template": template, "truncation": truncation, "sequence_len": length, "packing": packed}
    data = [{"path": str(folder / "a.jsonl"), "type": "prompt_completion"}]
    recipe, rundir = make_recipe(datasets=data, split={"validation": 0}, prompt=prompt), RunDir(folder / "run")
    refused = attempt(recipe, rundir)
    if refused is not None:
        assert any(f"{why} " in refused for why in WHY), refused
        return
    report, prepared = read_json(rundir.data / "report.json"), store.load(rundir)
    made = list(prepared.split("train"))
    assert report["rows"]["read"] == len(rows) == len(made) + sum(report["rows"]["dropped"].values())
    assert set(report["rows"]["dropped"]) <= WHY
    ids = [int(row["id"].rpartition(":")[2]) for row in made]
    assert len(set(ids)) == len(ids)
    for number, row in zip(ids, made, strict=True):
        check(tokenizer, row, rows[number]["completion"], template, length)
    if packed:
        check_packed(list(prepared.split(packing.PACKED)), made, length)


def attempt(recipe: Recipe, rundir: RunDir) -> str | None:
    """Prepare; the message of a refusal."""
    try:
        prepare.run(recipe, rundir)
    except DataError as error:
        return error.message
    return None


def check(tokenizer: Any, row: dict[str, Any], answer: str, template: str, length: int) -> None:
    learned = [id for id, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert learned == row["input_ids"][row["prompt_len"] :] == row["labels"][row["prompt_len"] :]
    told = str(tokenizer.decode(learned))
    assert told.removesuffix("<|im_end|>") == (answer.rstrip() if template == PLAIN else answer)
    assert told.endswith("<|im_end|>")
    assert row["loss_tokens"] == sum(label != -100 for label in row["labels"][1:]) > 0
    assert row["length"] == len(row["input_ids"]) == len(row["labels"]) <= length
    prompt = tokenizer.decode(row["input_ids"][: row["prompt_len"]])
    assert prompt == row["prompt"] or "\ufffd" in prompt  # cut in the middle of a character


def check_packed(sequences: list[dict[str, Any]], rows: list[dict[str, Any]], length: int) -> None:
    """Nothing is lost, repeated or cut."""
    found: Counter[tuple[int, ...]] = Counter()
    for sequence in sequences:
        at = 0
        for size in sequence["seq_lengths"]:
            found[tuple(sequence["input_ids"][at : at + size])] += 1
            at += size
        assert at == sequence["length"] <= length
    assert found == Counter(tuple(row["input_ids"]) for row in rows)
