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
LORA = {"r": 4, "alpha": 8, "target_modules": ["q_proj"]}


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
    assert capsys.readouterr().out.splitlines() == [
        "train: nothing; adapter was trained elsewhere",
        "train: the adapter is of a base it does not name: nobody compared that with the recipe's",
    ]
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
    assert error.hint == "--set 'lora={r: 4, alpha: 8, use_rslora: false, use_dora: false, target_modules: [q_proj]}'"
    assert "is an adapter, which the lora section" in refused(make(adapter, None), rundir).message
    assert refused(make("tiny:llama", LORA), rundir).hint == "--set lora=null"


def held(adapter: Path, **values: Any) -> Path:
    file = adapter / "adapter_config.json"
    write_json(file, read_json(file) | values)
    return adapter


def test_an_adapter_of_another_base(make: Make, adapter: Path, rundir: RunDir, capsys) -> None:
    base = {"base_model": "own/base"}
    error = refused(make(held(adapter, base_model_name_or_path="other/base"), LORA, **base), rundir)
    assert error.message.endswith("is an adapter of other/base, not of own/base")
    assert str(error.hint).startswith("--set model.base_model=other/base; ")
    assert adopt.same_base(make(adapter, LORA, **base), {"base_model_name_or_path": "Own/Base"}, "x") == []
    (note,) = adopt.same_base(make(adapter, LORA, **base), {"base_model_name_or_path": "/home/ann/base"}, "x")
    assert note.startswith("the adapter is of base: ")


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_an_adapter_with_ranks_of_its_own(make: Make, adapter: Path, rundir: RunDir, key: str) -> None:
    assert (
        f"has {key}, which no recipe can say"
        in refused(make(held(adapter, **{key: {"q_proj": 2}}), LORA), rundir).message
    )


ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]


def test_an_adapter_in_other_layers(make: Make, adapter: Path, rundir: RunDir) -> None:
    error = refused(make(adapter, LORA | {"target_modules": "attention"}), rundir)
    assert error.message.endswith("is in the layers q_proj, not k_proj, o_proj, q_proj, v_proj")
    assert str(error.hint).endswith("target_modules: [q_proj]}'")
    refused(make(held(adapter, target_modules=".*q_proj"), LORA), rundir)
    several = held(adapter, target_modules=ATTENTION)
    attention = make(several, LORA | {"target_modules": "attention"})
    assert adopt.same_layers(attention, {"target_modules": ATTENTION}, "x") == []
    group = make(several, {"r": 4, "alpha": 8})
    assert "gate_proj" in refused(group, rundir).message
    (note,) = adopt.same_layers(group, {"target_modules": ".*proj"}, "x")
    assert note == "the adapter is in the layers .*proj: nobody compared that with all-linear of the recipe"


def test_other_kinds_of_adapters(make: Make, adapter: Path, rundir: RunDir) -> None:
    held = read_json(adapter / "adapter_config.json")
    write_json(adapter / "adapter_config.json", held | {"peft_type": "IA3"})
    assert "of the kind IA3, not LoRA" in refused(make(adapter, LORA), rundir).message


def test_pickled_and_misnamed_weights(make: Make, adapter: Path, rundir: RunDir) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
    assert "holds no adapter_model.safetensors" in refused(make(adapter, LORA), rundir).message
    (adapter / "training_args.bin").write_bytes(b"\x80\x04.")
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
