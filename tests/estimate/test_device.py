"""What an estimate must do whatever its figures: add up, grow with what grows, and raise for no recipe."""

from __future__ import annotations

import json
import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from sysml_run import architecture, counts, document, estimate, machine, overrides
from sysml_run.estimate import layers, peak, recipes
from sysml_run.estimate.step import State, Step
from sysml_run.plan import settle
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

TEXT = """\
version: 1
name: estimated
model: {base_model: meta-llama/Meta-Llama-3-8B, dtype: bfloat16, attn_implementation: sdpa, kernels: torch}
datasets: [{path: /data/rows.jsonl, type: messages}]
prompt: {sequence_len: 1024}
lora: {r: 8}
optimizer: {name: adamw, learning_rate: 1e-4}
training: {max_steps: 1, micro_batch_size: 2, gradient_checkpointing: true}
hardware: {accelerator: gpu, type: h100-80gb, zero_stage: null}
"""
MIXTRAL = "model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1"
HERE = machine.Machine(8, 64 * 10**9, "a processor", True, "it has", "/usr/bin/python")
FULL = "lora=null"
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "overhead")


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def recipe(*assignments: str) -> Recipe:
    return settle(resolve(overrides.apply(document.parse(TEXT, "estimated.yaml"), assignments)), HERE).recipe


def of(*assignments: str) -> estimate.Estimate:
    found = estimate.of(recipe(*assignments), HERE)
    assert found is not None
    assert found.total == sum(getattr(found, name) for name in PARTS)
    assert min(astuple(found)) >= 0
    return found


def cards(number: int, stage: int | str = "null", **more: str) -> str:
    keys = "".join(f", {name}: {value}" for name, value in more.items())
    return f"hardware={{accelerator: gpu, type: h100-80gb, devices: {number}, zero_stage: {stage}{keys}}}"


def test_an_adapter_on_one_card_by_hand() -> None:
    """8.03e9 numbers in bf16; 20.97e6 trained in fp32; 32 layer inputs and a mask; logits of 128256 words."""
    found = of()
    assert found.weights == 2 * 8_030_261_248 + 4 * 20_971_520
    assert (found.gradients, found.optimizer, found.host) == (0, 8 * 20_971_520, 0)
    assert found.activations == 32 * 2048 * 2 * 4096 + 2048 * 1024
    assert found.logits == 2048 * ((2 + 3 * 4) * 128_256 + (4 + 2) * 4096)
    assert found.overhead == round(0.12 * (found.activations + found.logits)) + recipes.CUDA


GROWING: dict[str, tuple[int, ...]] = {
    "training.micro_batch_size": (1, 2, 3, 8, 64),
    "prompt.sequence_len": (64, 512, 4096, 32768),
    "lora.r": (1, 8, 64, 256),
}
KINDS = ((), (FULL,), (MIXTRAL,), (cards(8, 2),), (FULL, cards(8, 3)), (MIXTRAL, cards(8, 3)))


@pytest.mark.parametrize(
    ("more", "key"), [(more, key) for more in KINDS for key in GROWING if key != "lora.r" or FULL not in more]
)
def test_more_takes_more(more: tuple[str, ...], key: str) -> None:
    for kept in ("true", "false"):
        totals = [
            of(*more, f"{key}={value}", f"training.gradient_checkpointing={kept}").total for value in GROWING[key]
        ]
        assert totals == sorted(totals)
        assert totals[0] < totals[-1]


def test_more_layers_take_more(tmp_path: Path) -> None:
    totals = []
    for number in (1, 2, 8, 32):
        config = {**architecture.COMMON, "model_type": "llama", "vocab_size": 32000, "num_hidden_layers": number}
        (tmp_path / "config.json").write_text(json.dumps(config))
        totals.append(of(f"model.base_model={tmp_path}").total)
    assert totals == sorted(set(totals))


@pytest.mark.parametrize("more", [(), (FULL,), (MIXTRAL,), (FULL, cards(8, 3)), ("quantization.load=nf4",)])
@pytest.mark.parametrize("length", [16, 256, 4096])
def test_checkpointing_never_takes_more(more: tuple[str, ...], length: int) -> None:
    totals = [
        of(*more, f"prompt.sequence_len={length}", f"training.gradient_checkpointing={kept}").total
        for kept in ("true", "false")
    ]
    assert totals[0] <= totals[1]
    assert length < 4096 or totals[0] < totals[1]


def test_stages_share() -> None:
    found = [of(FULL, cards(8, stage)) for stage in (0, 1, 2, 3)]
    size = 8_030_261_248
    assert [each.weights for each in found] == [2 * size] * 3 + [size // 4]
    assert [each.optimizer for each in found] == [12 * size] + [12 * size // 8] * 3
    totals = [each.total for each in found]
    assert totals == sorted(totals, reverse=True)


def test_what_is_offloaded_is_in_the_memory_of_the_machine() -> None:
    """With the optimizer's state go gradients, in fp32 and as they come."""
    size = 8_030_261_248
    here = of(FULL, cards(8, 3))
    found = of(FULL, cards(8, 3, offload="{optimizer: cpu, parameters: none}"))
    assert (found.gradients, found.optimizer, found.host) == (0, 0, 8 * here.optimizer + (4 + 2) * size)
    assert of(FULL, cards(8, 3, nodes="2", offload="{optimizer: cpu, parameters: cpu}")).host == pytest.approx(
        20 * size / 2, rel=1e-6
    )


def test_offloaded_weights_come_to_one_card_too() -> None:
    """DeepSpeed leaves up to 1e9 numbers whole, beside the layer that is computed."""
    alone = of(FULL, cards(1, 3, offload="{optimizer: cpu, parameters: cpu}"))
    kept = of(FULL, cards(1, 3, offload="{optimizer: cpu, parameters: none}"))
    assert alone.weights == 0
    assert alone.overhead - kept.overhead > 2 * 10**9


def test_accumulated_gradients_wait_while_the_loss_is_computed() -> None:
    once, twice = (of(FULL, f"training.gradient_accumulation_steps={steps}") for steps in (1, 2))
    assert twice.gradients == 4 * 8_030_261_248
    assert twice.total >= once.total


def test_what_takes_less() -> None:
    plain = of().total
    assert of("quantization.load=nf4").total < of("quantization.load=int8").total < plain
    assert (
        of("training.gradient_checkpointing=false", "model.kernels=liger").total
        < of("training.gradient_checkpointing=false").total
    )
    assert (
        of("prompt.sequence_len=8192").total < of("prompt.sequence_len=8192", "model.attn_implementation=eager").total
    )
    assert (
        of("lora={r: 8, dropout: 0.0}", "training.gradient_checkpointing=false").total
        < of("lora={r: 8, dropout: 0.1}", "training.gradient_checkpointing=false").total
    )
    assert of(cards(2)).overhead > of(cards(1)).overhead
    kept = "training.gradient_checkpointing=false"
    masked, flash = of(kept), of(kept, "model.attn_implementation=flash_attention_2")
    repeated, masks = 32 * 2048 * 2 * 2 * (4096 - 1024), (32 * 2 + 1) * 2048 * 1024
    assert masked.activations - flash.activations == repeated + masks
    alone = "training.micro_batch_size=1"
    assert of(kept, alone) == of(kept, alone, "model.attn_implementation=flash_attention_2")


def test_a_teacher_s_predictions_are_compared_in_fp32() -> None:
    taught = of("distillation={teacher: tiny:llama}")
    assert taught.logits - of().logits == 2048 * 3 * 4 * 128_256


def test_numbers_that_are_not_halved() -> None:
    """fp32 arithmetic keeps twice; autocast copies what is trained, DeepSpeed holds it in 16 bits."""
    kept = "training.gradient_checkpointing=false"
    assert of(kept, "hardware.precision=fp32").activations > 1.5 * of(kept).activations
    assert of(FULL, kept).overhead - of(FULL).overhead > 2 * 6 * 10**9


ATTENTION = "lora={r: 8, target_modules: attention}"


def test_mixtures_keep_what_each_chosen_expert_does() -> None:
    more = ("training.gradient_checkpointing=false", ATTENTION)
    dense, mixed = of("model.base_model=mistralai/Mistral-7B-v0.1", *more), of(MIXTRAL, *more)
    assert 1.3 * dense.activations < mixed.activations < 3 * dense.activations


def test_adapters_on_experts_make_their_weights_anew() -> None:
    """PEFT adds them to all experts of a layer, 1.41e9 numbers, of which the backward pass needs the sum."""
    experts = 8 * 3 * 4096 * 14336
    for kept, layers_kept in (("false", 32), ("true", 1)):
        more = f"training.gradient_checkpointing={kept}"
        difference = of(MIXTRAL, more).activations - of(MIXTRAL, more, ATTENTION).activations
        assert difference == pytest.approx((layers_kept + 2) * 2 * experts, rel=0.1)


def test_dora_makes_a_matrix_for_its_norm() -> None:
    dora = "lora={r: 8, target_modules: attention, use_dora: true}"
    more = ("prompt.sequence_len=64", "model.base_model=Qwen/Qwen2.5-0.5B")
    assert of(dora, *more).overhead > of(ATTENTION, *more).overhead


@pytest.mark.parametrize("more", [(), (FULL,), (MIXTRAL, "lora={target_modules: attention}")])
def test_a_tpu_shares_all_but_what_passes(more: tuple[str, ...]) -> None:
    small, large = (of(*more, f"hardware={{accelerator: tpu, topology: {name}}}") for name in ("v4-16", "v4-32"))
    assert small.weights == pytest.approx(2 * large.weights, abs=2)
    assert small.activations == large.activations
    assert small.band == 0.30
    assert small.host == 0


def test_experts_on_a_tpu_see_every_token() -> None:
    more = ("hardware={accelerator: tpu, topology: v4-32}", "training.gradient_checkpointing=false")
    more += ("lora={target_modules: attention}", "prompt.sequence_len=128")
    assert of(MIXTRAL, *more).activations > 3 * of("model.base_model=mistralai/Mistral-7B-v0.1", *more).activations


@pytest.mark.parametrize(
    ("more", "kind"),
    [((), "adapters"), ((FULL,), "full"), (("quantization.load=nf4",), "quantized")],
)
def test_the_band_is_that_of_the_method(more: tuple[str, ...], kind: str) -> None:
    assert of(*more).band == estimate.BANDS[kind]


def test_what_is_not_known_is_not_estimated(tmp_path: Path) -> None:
    assert estimate.of(recipe("model.base_model=owner/name"), HERE) is None
    (tmp_path / "config.json").write_text('{"model_type": "gemma9"}')
    assert estimate.of(recipe(f"model.base_model={tmp_path}"), HERE) is None
    (tmp_path / "config.json").write_text("{")
    assert estimate.of(recipe(f"model.base_model={tmp_path}"), HERE) is None
    with_auto = resolve(overrides.apply(document.parse(TEXT, "x.yaml"), [cards(8, "auto")])).recipe
    assert estimate.of(with_auto, HERE) is None
    no_slice = ["hardware={accelerator: tpu, topology: v4-12}"]
    assert estimate.of(resolve(overrides.apply(document.parse(TEXT, "x.yaml"), no_slice)).recipe, HERE) is None


def test_a_processor_is_estimated_too() -> None:
    found = of("model.base_model=tiny:llama", "hardware={accelerator: cpu, precision: fp32}")
    assert found.weights > 0


def test_an_estimate_takes_no_time() -> None:
    wanted, best = recipe(MIXTRAL, cards(8, 3)), 1.0
    for _ in range(5):
        clock = time.process_time()
        estimate.of(wanted, HERE)
        best = min(best, time.process_time() - clock)
    assert best < 0.005


CHOICES: dict[str, tuple[Any, ...]] = {
    "model.base_model": ("tiny:llama", "tiny:mixtral", "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen2.5-0.5B"),
    "model.attn_implementation": ("auto", "eager", "sdpa", "flash_attention_2"),
    "model.kernels": ("auto", "torch", "liger"),
    "model.dtype": ("bfloat16", "float16", "float32"),
    "prompt.sequence_len": (8, 4096),
    "lora": (
        "null",
        "{r: 1}",
        "{r: 4, use_dora: true, dropout: 0}",
        "{target_modules: [lm_head]}",
        "{target_modules: [no]}",
    ),
    "optimizer.name": ("adamw", "adamw_8bit", "lion", "lion_8bit"),
    "training.gradient_checkpointing": ("true", "false"),
    "quantization.load": ("null", "nf4", "int8"),
    "hardware": (
        "{accelerator: gpu}",
        "{accelerator: gpu, precision: fp16, devices: 4, nodes: 2, zero_stage: 1}",
        "{accelerator: gpu, precision: fp32, devices: 2, zero_stage: 0}",
        "{accelerator: gpu, devices: 4, zero_stage: 3, offload: {optimizer: nvme, parameters: cpu}}",
        "{accelerator: tpu, topology: v3-8}",
        "{accelerator: tpu, topology: v5e-1}",
        "{accelerator: cpu}",
        "{accelerator: cpu, devices: 2, zero_stage: 2}",
    ),
}


@settings(deadline=None, max_examples=60)
@given(some.fixed_dictionaries({key: some.sampled_from(values) for key, values in CHOICES.items()}))
def test_no_recipe_makes_it_raise(chosen: dict[str, str]) -> None:
    found = estimate.of(recipe(*(f"{key}={value}" for key, value in chosen.items())), HERE)
    assert found is not None
    assert min(astuple(found)) >= 0


def test_a_step_that_recipes_have_no_word_for(step: Step) -> None:
    """What only published runs do: chunked and fused losses, selective checkpointing, offloaded inputs, full cards."""
    size = {loss: peak.of(replace(step, loss=loss)).logits for loss in ("copied", "plain", "chunked", "fused", "none")}
    assert [*size.values()] == sorted(size.values(), reverse=True)
    kept = [peak.moments(replace(step, kept=each))[0].activations for each in ("inputs", "some", "all")]
    assert kept == sorted(kept)
    assert peak.moments(replace(step, offloaded=True))[0].activations == kept[0] * 2 / 32
    assert layers.kept(replace(step, gated=False)) < layers.kept(step)
    assert layers.kept(replace(step, dropout=True, attention="eager")) > layers.kept(replace(step, attention="eager"))


def test_lengths_that_change_leave_blocks_behind(step: Step) -> None:
    constant, varied = peak.of(step), peak.of(replace(step, varied=True))
    assert varied.allocated == constant.allocated
    assert varied.slack > 2 * constant.slack
    full = peak.of(replace(step, varied=True, limit=varied.allocated + 10**9))
    assert full.reserved == varied.allocated + 10**9
    assert full.device == full.reserved
    empty = peak.of(replace(step, varied=True, tokens=1, scored=0, state=State(0, 0, 0)))
    assert empty.slack >= 0


def test_counts_are_those_of_the_recipe() -> None:
    wanted = recipe(MIXTRAL, cards(8, 3), FULL)
    found, state = of(MIXTRAL, cards(8, 3), FULL), counts.state_bytes(wanted)
    assert state is not None
    assert (found.weights, found.optimizer) == (state["weights"], state["optimizer"])
