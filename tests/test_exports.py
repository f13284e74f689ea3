"""What copies are called and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sysml_run import document, exports, overrides, pretokenizers, rules
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

TEXT = """\
version: 1
name: minimal
model: {base_model: "mistralai/Mixtral-8x7B-Instruct-v0.1"}
datasets: [{path: rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 2e-4}
training: {num_epochs: 1}
quantization: {export: [{method: gguf}, {method: gguf, type: F16}, {method: gptq, bits: 8, group_size: 64}]}
"""
Make = Callable[..., Recipe]
WEIGHED = "quantization.export=[{method: gguf, calibration: {}}, {method: gguf, type: Q6_K, calibration: {samples: 4}}]"
ODD = "quantization.export=[{method: gptq, group_size: 24}]"


@pytest.fixture
def recipe() -> Make:
    def make(*assignments: str) -> Recipe:
        return resolve(overrides.apply(document.parse(TEXT, "r.yaml"), assignments)).recipe

    return make


def test_names_and_libraries(recipe: Make) -> None:
    found = recipe().quantization.export
    assert [exports.name(each) for each in found] == ["gguf-Q4_K_M", "gguf-F16", "gptq-8bit-g64"]
    assert [exports.libraries(each) for each in found] == [("gguf", "libgguf"), ("gguf",), ("gptqmodel", "optimum")]


def test_bits_of_a_weight(recipe: Make) -> None:
    found = recipe().quantization.export
    assert [exports.bits(each) for each in found] == [4.9, 16, 8.375]


def test_one_disk_or_two(tmp_path: Path) -> None:
    from sysml_run import doctor

    assert doctor.same_disk(tmp_path / "a", tmp_path / "b/c")
    assert not doctor.same_disk(tmp_path, Path("/proc"))


def test_ways_to_split_text() -> None:
    def value(*steps: dict[str, object], **model: object) -> dict[str, object]:
        first = {"type": "Sequence", "pretokenizers": list(steps)} if len(steps) != 1 else steps[0]
        return {"model": {"type": "BPE"} | model, "pre_tokenizer": first}

    letters = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    assert pretokenizers.splitting(value(letters)) == "gpt-2"
    assert pretokenizers.splitting(value(digits, letters)) == "smollm"
    assert pretokenizers.splitting(value(letters | {"add_prefix_space": True})) is None
    assert pretokenizers.splitting(value(byte_fallback=True)) == "default"
    assert pretokenizers.splitting(value(type="Unigram")) is None
    pattern = {"type": "Split", "pattern": {"Regex": pretokenizers.TEKKEN}, "behavior": "Isolated", "invert": False}
    assert pretokenizers.splitting(value(pattern, letters | {"use_regex": False})) == "tekken"


def test_tekkens_pattern_is_mistrals() -> None:
    import json
    from pathlib import Path

    import mistral_common

    file = Path(mistral_common.__file__).parent / "data" / "tekken_240718.json"
    assert json.loads(file.read_text(encoding="utf-8"))["config"]["pattern"] == pretokenizers.TEKKEN


def test_smoke_makes_the_same_copies_of_a_tiny_model(recipe: Make) -> None:
    from sysml_run import smoke

    read = document.parse(TEXT, "r.yaml")
    small, _ = smoke.shrink(read, recipe(), [])
    found = resolve(small).recipe.quantization.export
    assert [exports.name(each) for each in found] == ["gguf-Q4_K_M", "gguf-F16", "gptq-8bit-g32"]
    assert found[2].calibration.samples == 8
    assert found[0].calibration is None


def test_smoke_calibrates_on_few_rows(recipe: Make) -> None:
    from sysml_run import smoke

    read = overrides.apply(document.parse(TEXT, "r.yaml"), [WEIGHED])
    small, _ = smoke.shrink(read, recipe(WEIGHED), [])
    assert [each.calibration.samples for each in resolve(small).recipe.quantization.export] == [8, 4]


def test_a_model_whose_rows_no_group_fits(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 100, "intermediate_size": 100, "num_attention_heads": 2}'
    )
    made = recipe(f"model.base_model={tmp_path}")
    (finding,) = rules.extras.export_groups(made)
    assert (finding.message, finding.hint) == (
        "rows of 100 weights are not whole groups of 64: torch's own kernel computes it",
        None,
    )
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    (finding,) = rules.extras.export_groups(recipe(f"model.base_model={tmp_path}", ODD))
    assert (finding.message, finding.hint) == ("no kernel reads groups of this size", "write 16")
