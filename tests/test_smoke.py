"""--smoke: what it swaps, what it leaves, and which tiny model stands for which base model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document, overrides, resources, rules, smoke, validate
from sysml_run.commands.load import load
from sysml_run.errors import RecipeError, UsageError
from sysml_run.resolve import Resolved, resolve

RECIPE = """\
version: 1
name: big
model: {{base_model: tiny:mixtral, revision: abc, attn_implementation: flash_attention_2, kernels: liger}}
datasets:
  - {{path: {path}, type: messages}}
  - {{path: rows.jsonl, type: prompt_completion}}
split: {{test: 500}}
prompt: {{sequence_len: 8192, truncation: error}}
lora: {{r: 4}}
optimizer: {{name: lion, learning_rate: 1e-4, warmup_steps: 1000}}
training: {{num_epochs: 3, micro_batch_size: 8, effective_batch_size: 256, save_steps: 500}}
evaluation: {{every_steps: 500, best: {{}}, generate: {{rows: 100, max_new_tokens: 512}}, metrics: [json_valid]}}
hardware: {{accelerator: gpu, devices: 8, zero_stage: 3}}
artifacts: {{dir: models/big}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    path = tmp_path / "big.yaml"
    path.write_text(RECIPE.format(path="nowhere.jsonl"))
    return path


def shrunk(recipe: Path, *assignments: str) -> tuple[Resolved, list[str]]:
    """As the command does it: --set, --smoke, and --set once more."""
    read = overrides.apply(document.load(recipe), assignments)
    assert validate.check(read) == []
    read, notes = smoke.shrink(read, resolve(read).recipe, assignments)
    assert validate.check(read) == []
    made = resolve(read)
    assert rules.check(made.recipe, read, running=True) == []
    return made, notes


def test_everything_that_makes_a_run_long_or_needs_other_hardware_is_swapped(recipe: Path) -> None:
    made, notes = shrunk(recipe)
    small, samples = made.recipe, resources.samples()
    assert (small.name, small.model.base_model, small.model.dtype) == ("big-smoke", "tiny:mixtral", "float32")
    assert (small.model.revision, small.model.tokenizer, small.model.attn_implementation) == (None, None, "auto")
    assert [each.path for each in small.datasets] == [
        str(samples / "messages.jsonl"), str(recipe.parent / "rows.jsonl"),
    ]  # fmt: skip
    assert {each.max_rows for each in small.datasets} == {64}
    assert (small.split.validation, small.split.test) == (0.25, 0.25)
    assert (small.prompt.sequence_len, small.prompt.truncation) == (512, "left")
    training = small.training
    assert (training.num_epochs, training.max_steps, training.save_steps, training.logging_steps) == (None, 4, 2, 1)
    assert (training.micro_batch_size, training.gradient_accumulation_steps) == (2, 1)
    assert training.effective_batch_size is None
    assert (small.optimizer.warmup_steps, small.optimizer.warmup_ratio) == (None, 0.25)
    assert small.evaluation.every_steps == 2
    assert small.evaluation.generate is not None
    assert (small.evaluation.generate.rows, small.evaluation.generate.max_new_tokens) == (4, 16)
    assert small.hardware.accelerator == "cpu"
    assert small.artifacts.dir is None
    assert made.sources["training.max_steps"] == "--smoke"
    assert "training.max_steps = 4" in notes
    assert 'model.base_model = "tiny:mixtral"' in notes


def test_what_is_asked_for_is_still_run(recipe: Path) -> None:
    before = resolve(document.load(recipe)).recipe
    after = shrunk(recipe)[0].recipe
    assert after.lora == before.lora
    assert after.optimizer.name == "lion"
    assert after.evaluation.metrics == before.evaluation.metrics
    assert after.evaluation.best == before.evaluation.best


def test_a_small_recipe_is_not_made_larger(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    path = tmp_path / "small.yaml"
    path.write_text("""\
version: 1
name: small
model: {base_model: tiny:qwen2}
datasets: [{path: rows.jsonl, type: messages}]
prompt: {sequence_len: 64}
optimizer: {name: sgd, learning_rate: 1e-4}
training: {max_steps: 9}
hardware: {accelerator: cpu, precision: fp32, threads: 1}
""")
    small, notes = shrunk(path)
    assert small.recipe.prompt.sequence_len == 64
    assert small.recipe.training.micro_batch_size == 1
    assert (small.recipe.optimizer.warmup_ratio, small.recipe.evaluation.every_steps) == (None, None)
    assert (small.recipe.evaluation.generate, small.recipe.split.test) == (None, 0)
    assert (small.recipe.hardware.precision, small.recipe.hardware.threads) == ("fp32", 1)
    assert not any(note.startswith(("hardware", "artifacts", "evaluation")) for note in notes)


SETS: dict[str, dict[str, Any]] = {
    "training.max_steps=10": {"training.max_steps": 10, "training.num_epochs": None},
    "training.num_epochs=2": {"training.num_epochs": 2.0, "training.max_steps": None},
    "training.num_epochs=null": {"training.num_epochs": None, "training.max_steps": 4},
    "training.gradient_accumulation_steps=5": {"training.gradient_accumulation_steps": 5},
    "training.effective_batch_size=12": {
        "training.effective_batch_size": 12,
        "training.gradient_accumulation_steps": None,
    },
    "optimizer.warmup_steps=1": {"optimizer.warmup_steps": 1, "optimizer.warmup_ratio": None},
    "optimizer.warmup_ratio=0.5": {"optimizer.warmup_ratio": 0.5, "optimizer.warmup_steps": None},
    "evaluation.generate.rows=8": {"evaluation.generate.rows": 8, "evaluation.generate.max_new_tokens": 16},
    "evaluation.generate={rows: 8}": {"evaluation.generate.rows": 8, "evaluation.generate.max_new_tokens": 256},
    "evaluation.generate.max_new_tokens=3": {"evaluation.generate.rows": 4, "evaluation.generate.max_new_tokens": 3},
    "split.validation=0.5": {"split.validation": 0.5},
    "datasets.0.max_rows=7": {"datasets.0.max_rows": 7, "datasets.1.max_rows": 64},
    "model.base_model=tiny:llama": {"model.base_model": "tiny:llama"},
    "model.dtype=bfloat16": {"model.dtype": "bfloat16"},
    "hardware.precision=fp32": {"hardware.accelerator": "cpu", "hardware.precision": "fp32"},
    "name=mine": {"name": "mine"},
}


@pytest.mark.parametrize("assignment", SETS)
def test_set_wins(recipe: Path, assignment: str) -> None:
    made, notes = shrunk(recipe, assignment)
    for key, wanted in SETS[assignment].items():
        found: Any = made.values
        for part in key.split("."):
            found = found[int(part)] if part.isdigit() else found[part]
        assert found == wanted, key
    key = assignment.partition("=")[0]
    assert not any(note.startswith(f"{key} =") for note in notes), "it says that it swapped what was set"


@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral", "qwen2"])
def test_architecture_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    assert smoke.architecture(str(tmp_path)) == name


def test_architecture_of_a_listed_hub_model() -> None:
    assert smoke.architecture("mistralai/Mixtral-8x7B-Instruct-v0.1") == "mixtral"
    assert smoke.architecture("HuggingFaceTB/SmolLM2-135M-Instruct") == "llama"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [({}, "llama"), ({"expert_count": 0}, "llama"), ({"expert_count": 8}, "mixtral")],
)
def test_architecture_of_a_gguf_file(tmp_path: Path, metadata: dict[str, int], name: str) -> None:
    assert smoke.architecture(str(gguf_file(tmp_path, "llama", metadata))) == name


def gguf_file(folder: Path, architecture: str, metadata: dict[str, int]) -> Path:
    """A GGUF file of metadata alone."""
    from gguf import GGUFWriter

    path = folder / "m.gguf"
    writer = GGUFWriter(path, architecture)
    for key, value in metadata.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "gemma9"}', "is 'gemma9', of which there is no tiny model"),
        ("{}", "is not known without its files"),
        ("{", "config.json cannot be read"),
        ("[]", "config.json cannot be read"),
    ],
)
def test_a_folder_that_tells_nothing(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        smoke.architecture(str(tmp_path))


def test_files_that_are_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for data in (b"", b"not a model at all", b"GGUF"):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="cannot be read as GGUF"):
            smoke.architecture(str(path))
    with pytest.raises(UsageError, match="'gpt2', of which there is no tiny model"):
        smoke.architecture(str(gguf_file(tmp_path, "gpt2", {})))


def test_an_unknown_hub_model() -> None:
    with pytest.raises(UsageError, match="owner/model is not known without its files") as error:
        smoke.architecture("owner/model")
    assert "--set model.base_model=tiny:llama" in str(error.value.hint)


def test_the_files_of_a_local_tokenizer_stay(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    made, _ = shrunk(recipe, f"model.base_model={tmp_path}")
    assert made.recipe.model.base_model == str(tmp_path)
    read = document.load(recipe)
    small, _ = smoke.shrink(read, resolve(overrides.apply(read, [f"model.base_model={tmp_path}"])).recipe, [])
    model = resolve(small).recipe.model
    assert (model.base_model, model.tokenizer) == ("tiny:mistral", str(tmp_path))


@pytest.mark.parametrize(
    ("teacher", "tiny"),
    {
        "mistralai/Mistral-7B-v0.3": "tiny:mistral",
        "owner/unknown": "tiny:mixtral",  # that of the model that learns
        "tiny:qwen2": "tiny:qwen2",
    }.items(),
)
def test_a_teacher_is_tiny_too(teacher: str, tiny: str, recipe: Path) -> None:
    read = overrides.apply(document.load(recipe), [f"distillation={{teacher: '{teacher}', alpha: 0.25}}"])
    small, notes = smoke.shrink(read, resolve(read).recipe, [])
    found = resolve(small).recipe.distillation
    assert found is not None
    assert (found.teacher, found.alpha) == (tiny, 0.25)
    assert f'distillation.teacher = "{tiny}"' in notes


@pytest.mark.parametrize("path", ["/", "data/**.jsonl", "hub:owner/name"])
def test_odd_data_paths(recipe: Path, path: str) -> None:
    recipe.write_text(RECIPE.format(path=json.dumps(path)))
    small = smoke.shrink(document.load(recipe), resolve(document.load(recipe)).recipe, [])[0].value
    assert small["datasets"][0]["path"] == (path if path == "/" else str(resources.samples() / "messages.jsonl"))


@pytest.mark.parametrize(
    ("name", "sample"), [("contracts.jsonl", True), ("messages.jsonl", True), ("own.jsonl", False)]
)
def test_rows_of_ones_own_are_sampled_by_the_name_of_their_file(recipe: Path, name: str, sample: bool) -> None:
    text = RECIPE.format(path=name).replace("type: messages", "type: rows, map: {prompt: a, completion: b}")
    recipe.write_text(text)
    small = smoke.shrink(document.load(recipe), resolve(document.load(recipe)).recipe, [])[0].value
    assert (small["datasets"][0]["path"] == str(resources.samples() / name)) is sample


def options(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"set": [], "hardware": None, "smoke": True, "offline": False} | changed)


def test_the_command_says_what_it_swaps(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, resolved = load(recipe, options(set=["training.max_steps=10"]))
    assert resolved.recipe.training.max_steps == 10
    said = capsys.readouterr().out
    assert said.startswith("--smoke swaps:\n  name = ")
    assert "max_steps" not in said


def test_a_contradiction_on_the_command_line_is_still_one(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="only one can end the run"):
        load(recipe, options(set=["training.max_steps=10", "training.num_epochs=2"]))


def test_the_shipped_recipes_shrink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gptqmodel", raising=False)  # which the tests hide
    for path in sorted(resources.recipes().glob("*.yaml")):
        _, resolved = load(path, options())
        assert resolved.recipe.training.max_steps == smoke.STEPS
        assert resolved.recipe.model.base_model.startswith("tiny:")


def test_what_set_says_of_hardware_is_said_of_the_processor(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe's own hardware has keys that a processor has not."""
    words = ["hardware.accelerator=cpu", "hardware.devices=2", "hardware.zero_stage=3"]
    options = argparse.Namespace(set=words, hardware=None, smoke=True)
    hardware = load(recipe, options)[1].recipe.hardware
    assert (hardware.accelerator, hardware.devices, hardware.zero_stage) == ("cpu", 2, 3)
    assert 'hardware = {"accelerator": "cpu"}' in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", "hardware: 3", "hardware: {accelerator: cpu, devices: 2}", "name: one"])
def test_hardware_that_is_no_other_stays(text: str) -> None:
    read = document.parse(text, "r.yaml")
    assert smoke.here(read) is read
