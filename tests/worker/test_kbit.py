"""Bases in 4 and 8 bits: what is quantized and what is not, how it computes and learns, and what step 0 notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.worker import kbit, models, settings
from sysml_run.worker.train import cast_frozen, training_dtype

LAYERS, WEIGHTS = 14, 2 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 128)  # of the tiny llama
IDS = torch.arange(40).view(2, 20) * 7 % 500


@pytest.fixture
def of(make_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """A recipe for adapters on a tiny model held in `load`."""

    def make(load: str | None, precision: str = "fp32", dtype: str = "float32", **sections: Any) -> Recipe:
        given = {
            "model": {"base_model": "tiny:llama", "dtype": dtype},
            "datasets": [{"path": "rows.jsonl", "type": "messages"}],
            "lora": {"r": 4},
            "hardware": {"accelerator": "cpu", "precision": precision},
            "quantization": {"load": load},
        }
        return make_recipe(**given | sections)

    return make


def loaded(recipe: Recipe) -> Any:
    return models.load_base(recipe, training_dtype(recipe))


def plain(recipe: Recipe) -> Any:
    return models.load_model(models.model_dir(recipe), recipe, "float32")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits.float()
    return found


def codes(model: Any) -> dict[str, bytes]:
    """Byte for byte: read as numbers, some codes are NaN."""
    return {name: layer.weight.detach().view(torch.uint8).numpy().tobytes() for name, layer in kbit.layers(model)}


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("fp32", "bfloat16"), ("bf16", "bfloat16")])
@pytest.mark.parametrize("load", kbit.CLASSES)
def test_the_linear_layers_are_quantized_and_nothing_else(
    load: str, precision: str, dtype: str, of: Callable[..., Recipe]
) -> None:
    recipe = of(load, precision, dtype)
    model = loaded(recipe)
    facts = kbit.check(recipe, model)
    assert (facts["quantized_layers"], facts["quantized_parameters"]) == (LAYERS, WEIGHTS)
    assert facts["quantized_as"] == load
    compute = {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[precision]
    assert facts["storage"] == ("torch.int8" if load == "int8" else compute)
    if load == "nf4":
        assert (facts["double_quantization"], facts["compute_dtype"]) == (True, compute)
    rest = {str(each.weight.dtype) for each in (model.get_input_embeddings(), model.get_output_embeddings())}
    assert rest == {f"torch.{training_dtype(recipe)}"}
    norms = [each for name, each in model.named_parameters() if "norm" in name]
    assert len(norms) == 5
    assert {each.dtype for each in norms} == {torch.float32}


@pytest.mark.parametrize(("load", "least", "most"), [("nf4", 0.05, 0.15), ("int8", 0.002, 0.02)])
def test_weights_are_rounded_as_finely_as_the_bits_allow(
    load: str, least: float, most: float, of: Callable[..., Recipe]
) -> None:
    """Root mean square of the rounding beside that of normal weights: 4 bits with 64 to a scale, 8 with a row."""
    recipe = of(load)
    wanted = dict(plain(recipe).named_parameters())
    rounded = dict(loaded(recipe).dequantize().named_parameters())
    matrices = [name for name, each in wanted.items() if "proj" in name and each.ndim == 2]
    assert len(matrices) == LAYERS
    for name in matrices:
        share = (rounded[name] - wanted[name]).detach().norm() / wanted[name].detach().norm()
        assert least < float(share) < most
    assert torch.equal(rounded["lm_head.weight"], wanted["lm_head.weight"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("load", kbit.CLASSES)
def test_evaluation_computes_what_training_does(load: str, precision: str, of: Callable[..., Recipe]) -> None:
    model = loaded(of(load, precision, "bfloat16"))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        training, before = logits(model.train()), codes(model)
        assert torch.equal(logits(model.eval()), training)
        assert torch.equal(logits(model.train()), training)
    assert codes(model) == before


@pytest.mark.parametrize("load", kbit.CLASSES)
def test_gradients_are_those_of_the_same_weights_unquantized_also_after_an_evaluation(
    load: str, of: Callable[..., Recipe]
) -> None:
    model = loaded(of(load))
    logits(model.eval())
    model.train()

    def gradient(some: Any) -> torch.Tensor:
        words = some.get_input_embeddings()(IDS).detach().requires_grad_(True)
        some(inputs_embeds=words, labels=IDS).loss.backward()
        assert words.grad is not None
        return words.grad

    found = gradient(model)
    assert float(found.abs().max()) > 0
    torch.testing.assert_close(found, gradient(model.dequantize()), atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize("load", [None, *kbit.CLASSES])
def test_frozen_weights_are_cast_but_not_codes(load: str | None, of: Callable[..., Recipe]) -> None:
    recipe = of(load, "bf16")
    model = loaded(recipe)
    assert recipe.lora is not None
    adapted = get_peft_model(model, settings.adapter(recipe.lora, model))
    before = codes(adapted)
    cast_frozen(adapted)
    assert len(before) == (LAYERS if load else 0)
    assert codes(adapted) == before
    base = [each.get_base_layer().weight.dtype for each in adapted.modules() if hasattr(each, "lora_A")]
    wanted = {None: torch.bfloat16, "nf4": torch.bfloat16, "int8": torch.int8}[load]
    assert base == [wanted] * LAYERS


def test_adapters_are_trained_in_fp32(of: Callable[..., Recipe]) -> None:
    recipe = of("nf4")
    model = loaded(recipe)
    assert recipe.lora is not None
    adapted = get_peft_model(model, settings.adapter(recipe.lora, model))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    kbit.widen_adapters(adapted)
    assert {each.dtype for each in adapted.parameters() if each.requires_grad} == {torch.float32}
    kbit.check(recipe, adapted)


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_numbers_are_counted_not_elements(storage: str) -> None:
    from bitsandbytes.nn import Params4bit

    weight = Params4bit(torch.randn(64, 32), quant_type="nf4", quant_storage=getattr(torch, storage)).to("cpu")
    assert weight.numel() < 64 * 32
    assert kbit.numbers(weight) == 64 * 32
    assert kbit.numbers(torch.nn.Parameter(torch.zeros(3, 5))) == 15


def as_int8(recipe: Recipe, of: Callable[..., Recipe]) -> Any:
    return loaded(of("int8"))


def unquantized(recipe: Recipe, of: Callable[..., Recipe]) -> Any:
    return plain(recipe)


def in_another_dtype(recipe: Recipe, of: Callable[..., Recipe]) -> Any:
    return loaded(of("nf4", "bf16", "bfloat16"))


def quantized_once(recipe: Recipe, of: Callable[..., Recipe]) -> Any:
    config = kbit.config(recipe)
    config.bnb_4bit_use_double_quant = False
    return models.load_model(models.model_dir(recipe), recipe, "float32", quantization_config=config)


def one_layer_left_out(recipe: Recipe, of: Callable[..., Recipe]) -> Any:
    model = loaded(recipe)
    model.model.layers[1].mlp.up_proj = plain(recipe).model.layers[1].mlp.up_proj
    return model


def head_too(recipe: Recipe, of: Callable[..., Recipe]) -> Any:
    model = loaded(recipe)
    model.lm_head = model.model.layers[1].mlp.up_proj
    return model


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (as_int8, "q_proj is bitsandbytes.nn.modules.Linear8bitLt, not bitsandbytes.nn.modules.Linear4bit"),
        (unquantized, "no layer is in nf4"),
        (in_another_dtype, "not in nf4: .*'storage': 'torch.bfloat16'"),
        (quantized_once, "not in nf4: .*'double_quantization': False"),
        (one_layer_left_out, r"model.layers.1.mlp.up_proj is not in nf4"),
        (head_too, "the head is quantized"),
    ],
)
def test_what_is_not_as_written_stops_the_run(
    made: Callable[[Recipe, Any], Any], words: str, of: Callable[..., Recipe]
) -> None:
    recipe = of("nf4")
    with pytest.raises(StageError, match=words):
        kbit.check(recipe, made(recipe, of))


def test_int8_rows_have_scales_before_and_after_they_are_first_used(of: Callable[..., Recipe]) -> None:
    recipe = of("int8")
    model = loaded(recipe)
    assert kbit.check(recipe, model)["quantized_as"] == "int8"
    logits(model)
    assert kbit.check(recipe, model)["quantized_as"] == "int8"
    layer = model.model.layers[0].mlp.up_proj
    layer.state.SCB = None
    with pytest.raises(StageError, match="up_proj is not in int8"):
        kbit.check(recipe, model)


def test_a_recipe_without_it_has_no_quantized_layer(of: Callable[..., Recipe]) -> None:
    recipe = of(None)
    assert kbit.arguments(recipe) == {}
    assert kbit.check(recipe, loaded(recipe)) == {}
    with pytest.raises(StageError, match="14 layers are quantized, and quantization"):
        kbit.check(recipe, loaded(of("nf4")))


def test_where_it_is_quantized(of: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = of("nf4", hardware={"accelerator": "gpu", "devices": 4})
    assert kbit.arguments(of("nf4"))["device_map"] == {"": "cpu"}
    assert kbit.arguments(gpu)["device_map"] == {"": 0}
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert kbit.arguments(gpu)["device_map"] == {"": 3}
    assert kbit.arguments(of("nf4"))["device_map"] == {"": "cpu"}
