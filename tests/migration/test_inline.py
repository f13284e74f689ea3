"""axolotl's inline type: the templates print what its prompter prints."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .conftest import Settle

HEAD = "base_model: a/b\nlearning_rate: 1e-4\ndatasets:\n  - path: rows.jsonl\n    type:\n"


def prompter(said: dict[str, str], row: dict[str, str]) -> str:
    """What axolotl 0.19 does (prompt_strategies/user_defined.py, alpaca_w_system.py), in short."""
    system = row.get(said.get("field_system", "system"), said.get("system_prompt", ""))
    before = said.get("system_format", "{system}").format(system=system) if system else ""
    more = row.get(said.get("field_input", "input"), "")
    asked = row[said.get("field_instruction", "instruction")]
    if more:
        return before + said.get("format", "{instruction} {input} ").format(instruction=asked, input=more)
    return before + said.get("no_input_format", "{instruction} ").format(instruction=asked)


@pytest.mark.parametrize(
    "said",
    [
        {"field_output": "output"},
        {"system_prompt": "Be terse.", "system_format": "<<{system}>>\n"},
        {"format": "{{%x%}} {instruction}\n{input} [/INST]", "no_input_format": "{instruction} {{{{ [/INST]"},
        {"field_instruction": "my question", "field_input": "class", "field_system": "none"},
    ],
    ids=["defaults", "system", "braces", "fields"],
)
@pytest.mark.parametrize(
    "extra", [{}, {"input": "more"}, {"input": ""}, {"class": "more"}, {"system": "Be kind."}, {"none": "Be kind."}]
)
def test_prompts_are_the_same(said: dict[str, str], extra: dict[str, str], settle: Settle) -> None:
    lines = "".join(f"      {name}: {value!r}\n" if "\n" not in value else "" for name, value in said.items())
    lines += "".join(f"      {name}: {_quoted(value)}\n" for name, value in said.items() if "\n" in value)
    made = settle("axolotl", HEAD + (lines or "      field_output: output\n"))
    row = {"instruction": "Why?", "my question": "Why?", "output": "So.", **extra}
    assert made.values["datasets.0.type"] == "rows"
    assert rendered(made.values["datasets.0.map.prompt"], row) == prompter(said, row)
    assert rendered(made.values["datasets.0.map.completion"], row) == "So."
    assert made.values["prompt.template"] == "none"


def test_a_format_that_cannot_be_read_is_listed(settle: Settle) -> None:
    made = settle("axolotl", HEAD + "      format: '{instruction} {other}'\n      field_instruction: q\n")
    assert made.listed["datasets.0.type.format"].startswith("its format cannot be read: {other} is none of")
    assert made.values["datasets.0.map.prompt"] == "{{ q }}"
    assert any("could not be read" in one for one in made.ledger.look)


def rendered(text: str, row: dict[str, Any]) -> str:
    return ImmutableSandboxedEnvironment(keep_trailing_newline=True).from_string(text).render(row=row, **row)


def _quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'
