"""What copies are called, what they take, and when there is too little room for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sysml_run import document, exports, overrides, pretokenizers, rules
from sysml_run.errors import UsageError
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


@pytest.fixture(autouse=True)
def _with_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "find_spec", lambda name: "found")


def test_names_and_libraries(recipe: Make) -> None:
    found = recipe().quantization.export
    assert [exports.name(each) for each in found] == ["gguf-Q4_K_M", "gguf-F16", "gptq-8bit-g64"]
    assert [exports.libraries(each) for each in found] == [("gguf", "libgguf"), ("gguf",), ("gptqmodel", "optimum")]


def test_room_for_a_large_model(recipe: Make) -> None:
    """46.7 billion parameters in bf16, twice, and 4.9, 16 and 8.4 bits of each, twice."""
    needed = exports.room(recipe())
    assert needed is not None
    assert needed.disk == pytest.approx(46.7e9 * (4 + (4.9 + 16 + 8.375) / 4), rel=1e-3)
    assert needed.copies == pytest.approx(46.7e9 * (4.9 + 16 + 8.375) / 4, rel=1e-3)
    assert needed.published == 0
    assert needed.memory == pytest.approx(4 * 46.7e9, rel=1e-3)


def test_a_published_copy_takes_room_and_numbers_read_back(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    needed, published = exports.room(recipe()), exports.room(recipe("artifacts.dir=/models"))
    assert needed is not None
    assert published is not None
    assert published.published == pytest.approx(46.7e9 * (2 + (4.9 + 16 + 8.375) / 8), rel=1e-3)
    assert published.disk == needed.disk
    (disk,) = exports.short(recipe("artifacts.dir=/models"), needed.disk, 10**12, beside=True)
    assert "on disk" in disk[0]
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    scratch = exports.room(recipe())
    assert scratch is not None
    assert scratch.disk - needed.disk == scratch.copies - needed.copies == needed.memory
    gptq = exports.room(recipe("quantization.export=[{method: gptq}]"))
    assert gptq is not None
    assert gptq.copies == pytest.approx(46.7e9 * (4 + 24 / 128) / 4, rel=1e-3)


def test_one_disk_or_two(tmp_path: Path) -> None:
    from sysml_run import doctor

    assert doctor.same_disk(tmp_path / "a", tmp_path / "b/c")
    assert not doctor.same_disk(tmp_path, Path("/proc"))


@pytest.mark.parametrize(
    "assignment",
    ["quantization.export=[]", "model.base_model=nobody/knows", "model.base_model=/no/such/folder"],
)
def test_what_is_not_known_takes_no_room(assignment: str, recipe: Make) -> None:
    assert exports.room(recipe(assignment)) is None
    assert list(exports.short(recipe(assignment), 0, 0)) == []


def test_too_little_room(recipe: Make) -> None:
    assert list(exports.short(recipe(), 10**12, 10**12)) == []
    (disk,) = exports.short(recipe(), 400 * 10**9, 10**12)
    assert disk[0] == "weights and their quantized copies take 528.6 GB on disk, 400.0 GB are free"
    assert list(exports.short(recipe(), 400 * 10**9, 10**12, started=True)) == []
    (memory,) = exports.short(recipe(), 10**12, 10**11)
    assert memory[0] == "comparing quantized copies takes 186.8 GB of memory, this machine has 100.0 GB"


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


def test_a_run_that_makes_no_copies_needs_no_room(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from argparse import Namespace

    from sysml_run.commands import run

    def options(**more: object) -> Namespace:
        return Namespace(**{"runs": tmp_path, "only": [], "until": None, "resume": None} | more)

    monkeypatch.setattr(run.doctor, "free", lambda folder: 1000)
    with pytest.raises(UsageError, match=r"take 528\.6 GB on disk, 0\.0 GB are free"):
        run.roomy(recipe(), options())
    with pytest.raises(UsageError, match=r"take 341\.8 GB on disk"):
        run.roomy(recipe(), options(resume="newest", only=["quantize"]))
    run.roomy(recipe(), options(until="merge"))
    run.roomy(recipe(), options(only=["train", "package"]))


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
