"""Nothing is dropped in silence, and what comes out is valid, whatever keys and values go in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysml_run import document, validate
from sysml_run.migration import convert, names, write
from sysml_run.migration.ledger import leaves

WORDS = ["lora", "qlora", "auto", "yes", "2e-4", "steps", "epoch", "no", "none", "all", "text", "tokenizer_default"]
WORDS += [
    "adamw_torch",
    "muon",
    "linear",
    "constant",
    "bf16",
    "cuda",
    "owner/name",
    "rows.jsonl",
    "./here",
    "a: b # c",
    "é\n",
]
WORDS += [
    "train[:1%]",
    "chat_template",
    "alpaca",
    "completion",
    "json",
    "[1",
    "{instruction}",
    "zero3.json",
    "torchtune.x.qlora_y",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, -1, 4, 0.5, 1e-4, 5.5, 10**9]),
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(WORDS), below, max_size=3),
    max_leaves=6,
)


def configuration(tool: str) -> st.SearchStrategy[dict[str, Any]]:
    """Random values under known names, nested ones inside their sections or in lists of sections, and a stranger."""
    known = sorted(names.load(tool).known)
    flat = [name for name in known if "." not in name]
    below = {name: [one.partition(".")[2] for one in known if one.startswith(f"{name}.")] for name in flat}

    def value(name: str) -> st.SearchStrategy[Any]:
        if not below[name]:
            return VALUES
        inside = [one.split(".") for one in below[name]]
        plain = st.dictionaries(st.sampled_from([one[0] for one in inside]), VALUES, max_size=6)
        deeper = [one for one in inside if len(one) == 2]
        nested = st.dictionaries(st.sampled_from([one[-1] for one in deeper]), VALUES, max_size=4) if deeper else VALUES
        section = plain | st.builds(lambda a, b: {**a, deeper[0][0] if deeper else "x": b}, plain, nested)
        return VALUES | section | st.lists(section, max_size=3)

    usual = st.sampled_from([*flat, *[name for name in flat if below[name]] * 10, *COMMON])
    keys = st.lists(usual | st.sampled_from(["lora_droput", "strange"]), min_size=1, max_size=14, unique=True)
    return keys.flatmap(
        lambda found: st.fixed_dictionaries({name: value(name) if name in below else VALUES for name in found})
    )


COMMON = ["learning_rate", "output_dir", "seed", "gradient_accumulation_steps", "max_steps"] * 3


@pytest.mark.parametrize("tool", convert.TOOLS)
def test_every_value_is_carried_or_listed(tool: str, tmp_path: Path) -> None:
    @settings(max_examples=60, deadline=None)
    @given(configuration(tool))
    def holds(value: dict[str, Any]) -> None:
        source = document.parse(json.dumps(value, ensure_ascii=False), str(tmp_path / "config.json"))
        ledger, _ = convert.settle(source, tool, tmp_path / "recipe.yaml", named=True)
        assert set(ledger.carried) | set(ledger.listed) == {leaf for leaf, _ in leaves(ledger.document.value)}
        assert not set(ledger.carried) & set(ledger.listed)
        assert all(place in ledger.entries or ledger.sections.get(place) for place in ledger.carried.values())
        assert all(ledger.listed.values())
        made = document.parse(write.recipe(ledger.entries, ledger.sections), "recipe.yaml")
        assert not validate.check(made)

    holds()
