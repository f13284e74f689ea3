"""Adapters on the layers that the recipe names, and training with them through the real trainer."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from sysml_run.errors import StageError
from sysml_run.recipe import Lora, Recipe
from sysml_run.worker import settings

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def mixtral() -> Any:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2))


def gpt2() -> Any:
    ids = {"bos_token_id": 0, "eos_token_id": 1}
    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=1, n_head=2, n_positions=32, **ids))


def lora(**changed: Any) -> Lora:
    values = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "use_rslora": False}
    return Lora(**({**values, "use_dora": False} | changed))


def adapted(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A")]


@pytest.mark.parametrize("make", [llama, mixtral])
def test_attention(make: Callable[[], Any]) -> None:
    model = make()
    assert settings.targets(lora(target_modules="attention"), model) == sorted(ATTENTION)
    names = adapted(get_peft_model(model, settings.adapter(lora(target_modules="attention"), model)))
    assert len(names) == 2 * 4
    assert {name.rpartition(".")[2] for name in names} == ATTENTION


def test_all_linear() -> None:
    model = llama()
    names = adapted(get_peft_model(model, settings.adapter(lora(), model)))
    assert len(names) == 2 * 7
    assert not any("lm_head" in name for name in names)


@pytest.mark.parametrize("wanted", [("q_proj",), ("q_proj", "mlp.down_proj"), ("model.layers.1.self_attn.v_proj",)])
def test_named_layers(wanted: tuple[str, ...]) -> None:
    model = llama()
    names = adapted(get_peft_model(model, settings.adapter(lora(target_modules=wanted), model)))
    assert len(names) == {("q_proj",): 2, ("q_proj", "mlp.down_proj"): 4}.get(wanted, 1)
    assert all(name.endswith(wanted) for name in names)


@pytest.mark.parametrize("name", ["qproj", "_proj", "proj", "layers.9.self_attn.q_proj", ""])
def test_a_layer_that_is_not_there(name: str) -> None:
    with pytest.raises(StageError, match=f"no layer of the model is called '{name}'") as error:
        settings.targets(lora(target_modules=("q_proj", name)), llama())
    assert error.value.hint == "it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


def test_a_layer_that_takes_no_adapter() -> None:
    with pytest.raises(StageError, match="'layers' is no linear layer"):
        settings.targets(lora(target_modules=("layers",)), llama())


def test_a_model_whose_attention_has_other_names() -> None:
    """GPT-2 calls a layer of its attention and one of its MLP c_proj; only the first is meant."""
    model = gpt2()
    assert settings.targets(lora(target_modules="attention"), model) == ["attn.c_proj", "c_attn"]
    with warnings.catch_warnings(action="ignore"):  # about how GPT-2 stores its weights
        names = adapted(get_peft_model(model, settings.adapter(lora(target_modules="attention"), model)))
    assert {name.partition("transformer.")[2] for name in names} == {"h.0.attn.c_attn", "h.0.attn.c_proj"}


def test_a_model_without_attention() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    model.get_input_embeddings = model.get_output_embeddings = lambda: None
    with pytest.raises(StageError, match="no attention projections were found") as error:
        settings.targets(lora(target_modules="attention"), model)
    assert error.value.hint == "it has 0"


def test_every_number_of_the_adapter(make_recipe: Callable[..., Recipe]) -> None:
    made = settings.adapter(lora(r=3, alpha=6.0, dropout=0.25, use_rslora=True, use_dora=True), llama())
    assert (made.r, made.lora_alpha, made.lora_dropout, made.use_rslora, made.use_dora) == (3, 6.0, 0.25, True, True)
    assert made.task_type == "CAUSAL_LM"


def train(recipe: Recipe, model: Any, folder: Path, tokenizer: Any) -> Any:
    """Train on a few rows as the train stage does, and return the trainer."""
    from datasets import Dataset

    from sysml_run.worker.batches import Collator
    from sysml_run.worker.trainer import Trainer

    drawn = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 96, (length,), generator=drawn).tolist() for length in (5, 9, 12, 7, 6, 11, 4, 8)]
    rows = Dataset.from_dict({"input_ids": ids, "labels": [[-100, -100, *each[2:]] for each in ids]})
    torch.manual_seed(recipe.seed)
    trainer = Trainer(
        lengths=[*map(len, ids)], model=model, args=settings.arguments(recipe, str(folder)), train_dataset=rows,
        processing_class=tokenizer, data_collator=Collator(2),
        peft_config=settings.adapter(recipe.lora, model) if recipe.lora else None,
    )  # fmt: skip
    trainer.train()
    assert trainer.tokens == 2 * sum(map(len, ids))
    return trainer


def trained(trainer: Any) -> dict[str, Any]:
    return {name: each.detach() for name, each in trainer.model.named_parameters() if each.requires_grad}


TRAINING = {"num_epochs": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 100}
HARDWARE = {"accelerator": "cpu", "precision": "fp32"}


@pytest.mark.parametrize("adapters", [None, {"r": 4}], ids=["full", "lora"])
def test_activation_checkpointing_changes_nothing_but_memory(
    adapters: Any, make_recipe: Callable[..., Recipe], tokenizer: Any, tmp_path: Path
) -> None:
    made = []
    for on in (False, True):
        training = TRAINING | {"gradient_checkpointing": on}
        dataset = [{"path": "rows.jsonl", "type": "messages"}]
        recipe = make_recipe(datasets=dataset, lora=adapters, training=training, hardware=HARDWARE)
        made.append(trained(train(recipe, llama(), tmp_path / str(on), tokenizer)))
    plain, checkpointed = made
    assert plain.keys() == checkpointed.keys()
    assert any(not torch.equal(each, torch.zeros_like(each)) for name, each in plain.items() if "lora_B" in name) or (
        adapters is None
    )
    for name, each in plain.items():
        torch.testing.assert_close(checkpointed[name], each, atol=1e-6, rtol=1e-5)


def test_a_mixture_of_experts_trains_with_its_router_loss(
    make_recipe: Callable[..., Recipe], tokenizer: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(
        datasets=[{"path": "rows.jsonl", "type": "messages"}],
        lora={"r": 4, "target_modules": "attention"}, training=TRAINING, hardware=HARDWARE,
    )  # fmt: skip
    trainer = train(recipe, mixtral(), tmp_path / "out", tokenizer)
    assert trainer.aux_loss_enabled
    made = trained(trainer)
    assert len(made) == 2 * 2 * 4
    assert all(bool(torch.isfinite(each).all()) for each in made.values())
