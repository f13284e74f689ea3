"""What QLoRA here takes from the pinned libraries is so: settings they accept, and what they would do if left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from datasets import Dataset
from peft import LoraConfig
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTTrainer

from sysml_run import document, overrides
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.worker import kbit, settings

TEXT = """\
version: 1
name: held
model: {base_model: tiny:llama, dtype: float32}
datasets: [{path: /data/rows.jsonl, type: messages}]
lora: {r: 8}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 1}
hardware: {accelerator: gpu}
"""


def recipe(*assignments: str) -> Recipe:
    return resolve(overrides.apply(document.parse(TEXT, "held.yaml"), assignments)).recipe


@pytest.mark.parametrize(("precision", "compute"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32")])
def test_settings_of_4_bits(precision: str, compute: str) -> None:
    made = kbit.config(recipe("quantization.load=nf4", f"hardware.precision={precision}"))
    assert isinstance(made, BitsAndBytesConfig)
    assert made.quantization_method() == "nf4"
    assert made.is_quantizable()
    wanted = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": compute,
        "bnb_4bit_quant_storage": compute,
    }
    assert {key: made.to_dict()[key] for key in wanted} == wanted


def test_settings_of_8_bits() -> None:
    made = kbit.config(recipe("quantization.load=int8"))
    assert made.quantization_method() == "llm_int8"
    assert (made.llm_int8_threshold, made.llm_int8_has_fp16_weight) == (6.0, False)
    assert made.llm_int8_skip_modules is None  # which leaves the head out


def test_the_layers_are_called_what_step_0_looks_for() -> None:
    layers = {"nf4": Linear4bit(64, 64), "int8": Linear8bitLt(64, 64)}
    assert {load: kbit.kind(layer) for load, layer in layers.items()} == dict(kbit.CLASSES)


def in_4_bits() -> Linear4bit:
    torch.manual_seed(0)
    layer = Linear4bit(64, 64, False, torch.float32, True, "nf4", torch.float32)
    layer.load_state_dict({"weight": torch.randn(64, 64)})
    return layer.to("cpu")


def in_8_bits() -> Linear8bitLt:
    torch.manual_seed(0)
    layer = Linear8bitLt(64, 64, False, has_fp16_weights=False, threshold=kbit.OUTLIERS)
    layer.load_state_dict({"weight": torch.randn(64, 64)})
    return layer.to("cpu")


@pytest.mark.skipif(not has_avx512bf16(), reason="this processor has no AVX-512 bf16")
@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit. an autograd kernel was not registered:UserWarning")
def test_left_alone_no_gradient_passes_4_bits_after_an_evaluation() -> None:
    layer, inputs = in_4_bits(), torch.randn(2, 64)
    first = layer.train()(inputs)
    with torch.no_grad():
        evaluated = layer.eval()(inputs)
    assert not torch.equal(evaluated, first)
    words = inputs.clone().requires_grad_(True)
    layer.train()(words).sum().backward()
    assert words.grad is None


def test_left_alone_8_bits_round_their_inputs_in_evaluation_only() -> None:
    layer, inputs = in_8_bits(), torch.randn(2, 64)
    with torch.no_grad():
        trained, evaluated = layer.train()(inputs), layer.eval()(inputs)
    assert not torch.equal(evaluated, trained)


@pytest.mark.parametrize("make", [in_4_bits, in_8_bits])
def test_prepared_both_compute_the_same(make: Callable[[], Any]) -> None:
    layer, inputs = make(), torch.randn(2, 64)
    kbit.prepare(layer)
    with torch.no_grad():
        trained, evaluated = layer.train()(inputs), layer.eval()(inputs)
    assert torch.equal(evaluated, trained)


def test_left_alone_trl_rounds_adapters_on_a_quantized_base_to_bf16(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)).save_pretrained(tmp_path / "base")
    held = recipe(
        "quantization.load=nf4",
        "hardware={accelerator: cpu, precision: fp32}",
        "training.gradient_accumulation_steps=1",
    )
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base", **kbit.arguments(held))
    arguments = settings.arguments(held, str(tmp_path / "out"))
    rows = Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2]]})
    trainer = SFTTrainer(
        model, arguments, train_dataset=rows, processing_class=words(), peft_config=LoraConfig(task_type="CAUSAL_LM")
    )
    adapters = {each.dtype for each in trainer.model.parameters() if each.requires_grad}
    assert adapters == {torch.bfloat16}
    rate, decay, weight = 1e-4, 0.01, torch.tensor(0.05, dtype=torch.bfloat16)
    assert weight * (1 - rate * decay) == weight  # so that weight decay would do nothing


def words() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({"a": 0, "<pad>": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="a")
