"""A model trained elsewhere: copied as the run's own, held to the recipe, refused where it is not what that says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document, resolve
from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, write_json
from sysml_run.worker import adopt, train

Make = Callable[..., Recipe]
LORA = {"r": 4, "alpha": 8}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A recipe for `tiny:llama` and what was trained of it."""

    def make(trained: Path | str, lora: dict[str, Any] | None, **model: Any) -> Recipe:
        values = {
            "version": 1,
            "name": "elsewhere",
            "model": {"base_model": "tiny:llama", "trained": str(trained), "dtype": "float32", **model},
            "datasets": [{"path": "rows.jsonl", "type": "prompt_completion"}],
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "training": {"max_steps": 1},
            **({"lora": lora} if lora else {}),
        }
        return resolve.resolve(document.parse(json.dumps(values), str(tmp_path / "recipe.yaml"))).recipe

    return make


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The adapter of another PEFT user for a Llama with 8 inputs."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"])).save_pretrained(
        tmp_path / "adapter"
    )
    return tmp_path / "adapter"


def test_an_adapter_takes_the_place_of_a_trained_one(make: Make, adapter: Path, rundir: RunDir, capsys) -> None:
    record = train.run(make(adapter, LORA), rundir)
    assert capsys.readouterr().out == "train: nothing; adapter was trained elsewhere\n"
    name = "adapter_model.safetensors"
    assert (rundir.model / name).read_bytes() == (adapter / name).read_bytes()
    assert read_json(rundir.model / "adapter_config.json") == read_json(adapter / "adapter_config.json")
    assert (rundir.model / "tokenizer.json").is_file()
    assert not (rundir.model / "README.md").exists()
    assert record["elsewhere"]["name"] == "adapter"
    assert list(record["elsewhere"]["sha256"]) == [name]
    assert record["base"]["base_model"] == "tiny:llama"


def test_whole_weights_do_too(make: Make, rundir: RunDir) -> None:
    record = adopt.run(make("tiny:llama", None), rundir)
    assert record["elsewhere"] | {"sha256": 0} == {"name": "tiny:llama", "adapter": False, "sha256": 0}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in rundir.model.iterdir()}


def refused(recipe: Recipe, rundir: RunDir) -> StageError:
    with pytest.raises(StageError) as caught:
        adopt.run(recipe, rundir)
    assert not rundir.model.exists()
    assert list(rundir.path.iterdir()) == []
    return caught.value


def test_an_adapter_is_what_the_recipe_says(make: Make, adapter: Path, rundir: RunDir) -> None:
    error = refused(make(adapter, {"r": 8, "alpha": 8, "use_rslora": True}), rundir)
    assert error.message.endswith("has r 4, not 8; use_rslora False, not True as the recipe says")
    assert error.hint == "--set 'lora={r: 4, alpha: 8, use_rslora: false, use_dora: false}'"
    assert "is an adapter, which the lora section" in refused(make(adapter, None), rundir).message
    assert refused(make("tiny:llama", LORA), rundir).hint == "--set lora=null"


def test_other_kinds_of_adapters(make: Make, adapter: Path, rundir: RunDir) -> None:
    held = read_json(adapter / "adapter_config.json")
    write_json(adapter / "adapter_config.json", held | {"peft_type": "IA3"})
    assert "of the kind IA3, not LoRA" in refused(make(adapter, LORA), rundir).message


def test_pickled_and_misnamed_weights(make: Make, adapter: Path, rundir: RunDir) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
    assert "holds no adapter_model.safetensors" in refused(make(adapter, LORA), rundir).message
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert "pickled files" in refused(make(adapter, LORA), rundir).message


def test_a_tokenizer_with_more_tokens_than_the_model(make: Make, tmp_path: Path, rundir: RunDir) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)).save_pretrained(tmp_path / "small")
    error = refused(make(tmp_path / "small", None), rundir)
    assert "has rows for 16" in error.message
    assert error.hint == f"--set model.tokenizer={tmp_path / 'small'}"
