"""Counts against published totals and hand-made sums; the libraries' own numbers are asked in contract/."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysml_run import architecture, counts, document, overrides
from sysml_run.counts import Parameters
from sysml_run.errors import UsageError
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

TEXT = """\
version: 1
name: counted
model: {base_model: tiny:llama, dtype: float32}
datasets: [{path: /data/rows.jsonl, type: messages}]
lora: {r: 8}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 1}
hardware: {accelerator: cpu, precision: fp32}
"""
MIXTRAL = "model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1"
LLAMA = "model.base_model=meta-llama/Meta-Llama-3-8B"
TINY, ADAPTER = 205_120, 16_384  # tiny:llama, and its adapters of rank 8


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def recipe(*assignments: str) -> Recipe:
    return resolve(overrides.apply(document.parse(TEXT, "counted.yaml"), assignments)).recipe


def counted(*assignments: str) -> Parameters:
    found = counts.parameters(recipe(*assignments))
    assert found is not None
    return found


def state(*assignments: str) -> dict[str, int]:
    found = counts.state_bytes(recipe(*assignments))
    assert found is not None
    return found


@pytest.mark.parametrize("name", architecture.catalogue())
def test_the_published_total(name: str) -> None:
    published = architecture.catalogue()[name]["parameters"]
    assert counted(f"model.base_model={name}", "lora=null") == Parameters(published, published, None, {}, ())


def test_totals_that_are_known_by_heart() -> None:
    assert counted(MIXTRAL).total == 46_702_792_704
    assert counted(LLAMA).total == 8_030_261_248
    assert counted("model.base_model=mistralai/Mistral-7B-v0.1").total == 7_241_732_096


def test_a_tiny_model_by_hand() -> None:
    attention, feed_forward, norms = 64 * (64 + 32 + 32 + 64), 3 * 64 * 128, 2 * 64
    assert 2 * 1024 * 64 + 2 * (attention + feed_forward + norms) + 64 == TINY
    pairs = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
    assert 2 * 8 * sum(inputs + outputs for inputs, outputs in pairs) == ADAPTER
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert counted() == Parameters(TINY, ADAPTER, 4 * ADAPTER, dict.fromkeys(names, 2), ())


def test_attention_of_mixtral() -> None:
    found = counted(MIXTRAL, "lora={r: 16, target_modules: attention}")
    assert found.trainable == 32 * 16 * ((4096 + 4096) + 2 * (4096 + 1024) + (4096 + 4096)) == 13_631_488
    assert found.adapter_bytes == 54_525_952
    assert found.matched == {"q_proj": 32, "k_proj": 32, "v_proj": 32, "o_proj": 32}


def test_every_matrix_of_mixtral() -> None:
    found = counted(MIXTRAL, "lora={r: 16}")
    router = 32 * 16 * (4096 + 8)
    experts = 32 * 8 * 16 * (2 * (4096 + 2 * 14336) + (14336 + 4096))
    assert found.trainable == 13_631_488 + router + experts
    assert found.matched["gate"] == 32
    assert (found.matched["gate_up_proj"], found.matched["down_proj"]) == (256, 256)
    assert counts.plain_only(recipe(MIXTRAL)) == ("gate", "gate_up_proj", "down_proj")
    assert counts.plain_only(recipe()) == ()


def test_targets_that_match_nothing() -> None:
    wanted = "lora={target_modules: [q_proj, gate_proj, w1]}"
    found = counted(MIXTRAL, wanted)
    assert found.unmatched == counts.unmatched(recipe(MIXTRAL, wanted)) == ("gate_proj", "w1")
    assert found.matched == {"q_proj": 32}
    assert counts.unmatched(recipe(LLAMA, wanted)) == ("w1",)
    assert counts.unmatched(recipe()) == counts.unmatched(recipe("model.base_model=owner/name")) == ()
    nothing = counted("lora={target_modules: [w1]}")
    assert (nothing.trainable, nothing.adapter_bytes, nothing.matched) == (0, 0, {})


def test_dora_adds_a_vector() -> None:
    plain, dora = counted("lora={r: 8}"), counted("lora={r: 8, use_dora: true}")
    assert dora.trainable - plain.trainable == 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)


def test_a_base_that_is_saved_with_its_adapter() -> None:
    found = counted("lora={r: 8, target_modules: [embed_tokens]}")
    assert found.adapter_bytes == 4 * (8 * (1024 + 64) + 1024 * 64)
    assert counted("lora={r: 8, target_modules: [model.embed_tokens]}").adapter_bytes == 4 * 8 * (1024 + 64)


def test_models_that_are_not_at_hand(tmp_path: Path) -> None:
    for name in ("owner/name", str(tmp_path / "none"), "package:no_such_module/m.gguf"):
        wanted = recipe(f"model.base_model={name}", "lora={target_modules: [q_proj]}")
        assert counts.parameters(wanted) is counts.unmatched(wanted) is counts.plain_only(wanted) is None
        assert counts.state_bytes(wanted) is None
    assert counts.unmatched(recipe("lora=null")) is counts.plain_only(recipe("lora=null")) is None


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma9", "hidden_size": 64}')
    assert counts.parameters(recipe(f"model.base_model={tmp_path}")) is None


def test_a_model_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    wanted = recipe(f"model.base_model={tmp_path}", "lora={target_modules: [q_proj]}")
    for count in (counts.parameters, counts.state_bytes):
        with pytest.raises(UsageError, match="cannot be read"):
            count(wanted)
    assert counts.unmatched(wanted) is counts.plain_only(wanted) is None


GPU = "hardware={accelerator: gpu, precision: %s, devices: 4, nodes: 2, zero_stage: %s}"


def test_one_device() -> None:
    assert state() == {"weights": 4 * (TINY + ADAPTER), "gradients": 4 * ADAPTER, "optimizer": 8 * ADAPTER, "host": 0}
    assert state("lora=null") == {"weights": 4 * TINY, "gradients": 4 * TINY, "optimizer": 8 * TINY, "host": 0}
    assert state(GPU % ("fp32", "null")) == state()


def test_frozen_matrices_are_held_as_they_are_used() -> None:
    ends, norms = 2 * 1024 * 64, 5 * 64
    held = 4 * (ends + norms) + 2 * (TINY - ends - norms)
    assert state("hardware.precision=bf16")["weights"] == held + 4 * ADAPTER
    assert state("hardware.precision=bf16", "model.dtype=bfloat16")["weights"] == 2 * TINY + 4 * ADAPTER
    assert state("lora.use_dora=true", "hardware.precision=bf16")["weights"] == 4 * counted(
        "lora.use_dora=true"
    ).total + (4 * counted("lora.use_dora=true").trainable)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer"), [(0, 1, 1, 1), (1, 1, 1, 8), (2, 1, 8, 8), (3, 8, 8, 8)]
)
def test_zero_divides(stage: int, weights: int, gradients: int, optimizer: int) -> None:
    found = state("lora=null", GPU % ("bf16", stage))
    assert found == {
        "weights": 2 * TINY // weights,
        "gradients": 2 * TINY // gradients,
        "optimizer": 12 * TINY // optimizer,
        "host": 0,
    }


def test_llama_3_8b_as_the_zero_paper_counts() -> None:
    """Sixteen bytes a parameter, of which two remain on each device but for the rest's eighth."""
    size = 8_030_261_248
    whole, second, third = (state(LLAMA, "lora=null", GPU % ("bf16", stage)) for stage in (0, 2, 3))
    assert sum(whole.values()) == 16 * size
    assert sum(second.values()) == 2 * size + 14 * size // 8
    assert sum(third.values()) == 16 * size // 8


@pytest.mark.parametrize(("stage", "copy"), [(0, 0), (1, 4), (2, 4), (3, 0)])
def test_the_copy_in_fp32(stage: int, copy: int) -> None:
    one = f"hardware={{accelerator: cpu, precision: fp32, zero_stage: {stage}"
    assert state("lora=null", one + "}")["optimizer"] == (copy + 8) * TINY
    if stage == 3:
        offloaded = state("lora=null", one + ", offload: {optimizer: cpu}}")  # which is there already
        assert (offloaded["optimizer"], offloaded["host"]) == (12 * TINY, 0)


def test_shares_are_rounded_up() -> None:
    found = state(
        "lora={r: 1, target_modules: [embed_tokens]}",
        "hardware={accelerator: cpu, precision: fp32, devices: 3, zero_stage: 2}",
    )
    assert found["gradients"] == -(-4 * 1088 // 3)
    assert found["optimizer"] == 12 * -(-1088 // 3)


def test_offloaded_state_is_the_hosts() -> None:
    """Gradients go with it: in fp32 for the step, and as they come where they are added up."""
    here = state("lora=null", GPU % ("bf16", 3))
    offload = "hardware.offload={optimizer: cpu, parameters: none}"
    found = state("lora=null", GPU % ("bf16", 3), offload)
    each = -(-TINY // 8)
    assert found == here | {"gradients": 0, "optimizer": 0, "host": here["optimizer"] + 4 * each + here["gradients"]}
    offload = "hardware.offload={optimizer: cpu, parameters: nvme}"
    assert state("lora=null", GPU % ("bf16", 3), offload) == found | {"weights": 0}
    offload = "hardware.offload={optimizer: nvme, parameters: cpu}"
    host = here["weights"] + here["gradients"]
    assert state("lora=null", GPU % ("bf16", 3), offload) == found | {"weights": 0, "host": host}


@pytest.mark.parametrize(("stage", "steps", "on_card", "added_up"), [(1, 2, 2 * TINY, 0), (2, 1, 0, 0), (2, 2, 0, 1)])
def test_gradients_of_an_offloaded_optimizer(stage: int, steps: int, on_card: int, added_up: int) -> None:
    """ZeRO-1 keeps them on the card; ZeRO-2 has a buffer there for the largest, that of the embeddings."""
    here = state("lora=null", GPU % ("bf16", stage))
    accumulated = f"training.gradient_accumulation_steps={steps}"
    offload = "hardware.offload={optimizer: cpu, parameters: none}"
    found = state("lora=null", GPU % ("bf16", stage), offload, accumulated)
    assert found["gradients"] == (on_card or 2 * 1024 * 64)
    assert found["host"] == here["optimizer"] + 4 * -(-TINY // 8) + added_up * here["gradients"]


@pytest.mark.parametrize(
    ("name", "each"), [("adamw", 8), ("adamw_8bit", 2.03125), ("lion", 4), ("lion_8bit", 1.015625), ("sgd", 0)]
)
def test_optimizers(name: str, each: float) -> None:
    optimizer = f"optimizer={{name: {name}, learning_rate: 1e-3}}"
    assert state(GPU % ("bf16", 1), "lora=null", optimizer)["optimizer"] == pytest.approx(
        (4 + each) * TINY / 8, rel=1e-3
    )


def test_small_tensors_and_embeddings_are_not_kept_in_8_bits() -> None:
    adamw = "optimizer={name: adamw_8bit, learning_rate: 1e-3}"
    assert state(adamw)["optimizer"] == 8 * ADAPTER
    words, norms, k_and_v = 1024 * 64, 5 * 64, 4 * 32 * 64
    matrices = TINY - words - norms - k_and_v  # of 4096 numbers and more, and of whole blocks of 256
    assert state("lora=null", adamw)["optimizer"] == 8 * (words + norms + k_and_v) + matrices * 2 * (256 + 4) // 256


def test_adafactor_keeps_rows_and_columns_unless_zero_flattens_them() -> None:
    adafactor = ("lora={r: 8, target_modules: [q_proj]}", "optimizer={name: adafactor, learning_rate: 1e-3}")
    assert state(*adafactor)["optimizer"] == 2 * 4 * ((8 + 64) + (64 + 8))
    one = "hardware={accelerator: cpu, precision: fp32, zero_stage: 1}"
    assert state(*adafactor, one)["optimizer"] == 2 * 8 * (8 * 64 + 64 * 8)


def test_quantized_bases() -> None:
    ends, norms = 2 * 1024 * 64, 5 * 64
    dense = TINY - ends - norms
    base = ("hardware.precision=bf16", "model.dtype=bfloat16")
    nf4, int8 = state("quantization.load=nf4", *base), state("quantization.load=int8", *base)
    assert nf4["gradients"] == 4 * ADAPTER
    assert nf4["weights"] - 2 * ends - 4 * (norms + ADAPTER) == pytest.approx(dense * 4.127 / 8, rel=0.01)
    assert int8["weights"] - 2 * ends - 4 * (norms + ADAPTER) == dense + 4 * 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert counted("quantization.load=nf4", "lora.use_dora=true").adapter_bytes == 4 * (ADAPTER + 2 * 512)
    assert nf4["optimizer"] == 8 * ADAPTER


@pytest.mark.parametrize(("topology", "devices"), [("v3-8", 8), ("v4-32", 16)])
def test_the_devices_of_a_tpu_share_all_of_it(topology: str, devices: int) -> None:
    found = state("lora=null", f"hardware={{accelerator: tpu, topology: {topology}}}")
    whole = {"weights": 4 * TINY, "gradients": 4 * TINY, "optimizer": 8 * TINY, "host": 0}
    assert found == {name: -(-size // devices) for name, size in whole.items()}


def test_adapters_on_a_tpu() -> None:
    found = state("model.dtype=bfloat16", "hardware={accelerator: tpu, topology: v3-8}")
    assert found["gradients"] == 4 * ADAPTER // 8
    assert found["optimizer"] == 8 * ADAPTER // 8
    assert found["weights"] == (2 * TINY + 4 * ADAPTER) // 8


@pytest.mark.parametrize(
    "hardware",
    [
        "{accelerator: cpu, precision: auto}",
        "{accelerator: gpu, zero_stage: auto}",
    ],
)
def test_what_is_not_settled_is_not_counted(hardware: str) -> None:
    assert counts.state_bytes(recipe(f"hardware={hardware}")) is None
    assert counts.parameters(recipe(f"hardware={hardware}")) is not None
