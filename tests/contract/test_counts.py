"""The closed form against the real libraries: tensors, adapters, optimizers' states, saved and quantized files."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from sysml_run import architecture, counts, document, overrides, shapes
from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.worker import models, settings, tiny
from sysml_run.worker.train import cast_frozen, training_dtype

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
SIZES = {"vocab_size": 100, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}
EXPERTS = {"num_local_experts": 5, "num_experts_per_tok": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES, **HEADS},
    "llama with biases": {"model_type": "llama", **SIZES, **HEADS, "attention_bias": True, "mlp_bias": True},
    "llama with wide heads, tied": {
        "model_type": "llama",
        **SIZES,
        **HEADS,
        "head_dim": 16,
        "tie_word_embeddings": True,
    },
    "llama by defaults": {"model_type": "llama"},
    "mistral": {"model_type": "mistral", **SIZES, **HEADS},
    "mistral with wide heads": {"model_type": "mistral", **SIZES, **HEADS, "head_dim": 16},
    "mistral by defaults": {"model_type": "mistral"},
    "mixtral": {"model_type": "mixtral", **SIZES, **HEADS, **EXPERTS},
    "mixtral with one expert": {"model_type": "mixtral", **SIZES, **HEADS, "num_local_experts": 1, "head_dim": None},
    "mixtral by defaults": {"model_type": "mixtral"},
    "qwen2": {"model_type": "qwen2", **SIZES, **HEADS, "tie_word_embeddings": True},
    "qwen2 by defaults": {"model_type": "qwen2"},
    "qwen2 without groups": {"model_type": "qwen2", **SIZES, "num_attention_heads": 6, "num_key_value_heads": None},
}
SMALL = ("llama", "mistral", "mixtral", "qwen2")
LARGE = ("meta-llama/Meta-Llama-3-8B", "mistralai/Mixtral-8x7B-Instruct-v0.1", "Qwen/Qwen2.5-0.5B")
LORAS = {
    "all-linear": "{r: 8}",
    "attention": "{r: 4, target_modules: attention}",
    "attention with DoRA": "{r: 4, target_modules: attention, use_dora: true}",
    "a list": "{r: 16, target_modules: [q_proj, o_proj]}",
    "a list with DoRA": "{r: 16, target_modules: [v_proj], use_dora: true}",
    "a longer name": "{target_modules: [self_attn.k_proj]}",
    "one layer": "{target_modules: [model.layers.1.self_attn.q_proj, v_proj]}",
    "names that overlap": "{target_modules: [q_proj, self_attn.q_proj]}",
    "tokens in and out": "{r: 2, target_modules: [embed_tokens, lm_head]}",
}
DENSE = {
    "all-linear with DoRA": "{r: 8, use_dora: true}",
    "feed-forward": "{target_modules: [gate_proj, up_proj, down_proj]}",
}
MIXTURE = {
    "router": "{target_modules: [gate]}",
    "router and attention": "{target_modules: [mlp.gate, q_proj]}",
    "router of one layer is that of all": "{target_modules: [model.layers.1.mlp.gate]}",
}


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def recipe(model: Path | str, *assignments: str) -> Recipe:
    read = document.parse(TEXT, "counted.yaml")
    return resolve(overrides.apply(read, [f"model.base_model={model}", *assignments])).recipe


def saved(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def built(config: dict[str, Any], device: str = "meta", dtype: torch.dtype = torch.float32) -> Any:
    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **values), dtype=dtype)


def adapted(wanted: Recipe, model: Any) -> Any:
    assert wanted.lora is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        return get_peft_model(model, settings.adapter(wanted.lora, model))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_counted(tmp_path: Path, name: str) -> None:
    model = built(CONFIGS[name])
    found = architecture.find(recipe(saved(tmp_path, CONFIGS[name])).model)
    assert found is not None
    shaped = sorted(shape for tensor in shapes.tensors(found) for shape in [tensor.shape] * tensor.times)
    assert shaped == sorted(tuple(parameter.shape) for parameter in model.parameters())
    counted = counts.parameters(recipe(tmp_path, "lora=null"))
    assert counted == counts.Parameters(model.num_parameters(), model.num_parameters(), None, {}, ())


@pytest.mark.parametrize("name", SMALL)
def test_every_default_is_that_of_transformers(name: str) -> None:
    config = AutoConfig.for_model(name)
    assert {key: getattr(config, key) for key in architecture.DEFAULTS[name]} == architecture.DEFAULTS[name]


@pytest.mark.parametrize("name", SMALL)
def test_the_tiny_model_is_what_the_worker_makes(tmp_path: Path, name: str) -> None:
    tiny.make_tokenizer(tmp_path / "words")
    tiny.make_model(name, tmp_path / "words", tmp_path / "model")
    made = architecture.named(str(tmp_path / "model"))
    known = architecture.named(f"tiny:{name}")
    assert made is not None
    assert known is not None
    assert {**vars_of(made), "source": ""} == {**vars_of(known), "source": ""}


def vars_of(found: architecture.Architecture) -> dict[str, Any]:
    return {name: getattr(found, name) for name in architecture.Architecture.__slots__}


def cases() -> list[tuple[str, str]]:
    both = list(itertools.product((*SMALL, *LARGE), LORAS.values()))
    dense = [(name, lora) for name in (*SMALL, *LARGE) if "ixtral" not in name for lora in DENSE.values()]
    return both + dense + [(name, lora) for name in (SMALL[2], LARGE[1]) for lora in MIXTURE.values()]


@pytest.mark.parametrize(("name", "lora"), cases())
def test_every_adapter_is_counted(tmp_path: Path, name: str, lora: str) -> None:
    config = dict(CONFIGS[name] if name in CONFIGS else architecture.catalogue()[name]["config"])
    wanted = recipe(saved(tmp_path, config) if name in CONFIGS else name, f"lora={lora}")
    model = adapted(wanted, built(config))
    counted = counts.parameters(wanted)
    assert counted is not None
    trainable, everything = model.get_nb_trainable_parameters()
    assert (counted.trainable, counted.total) == (trainable, everything - trainable)
    assert counted.unmatched == ()
    if "target_modules" in lora and "gate]" not in lora:
        assert sum(counted.matched.values()) == sum(hasattr(module, "lora_A") for module in model.modules())


GRID = {  # for every shipped size: a rank, and what stands beside what
    "all-linear": "{r: 16}",
    "attention, scaled by the root of the rank": "{r: 64, target_modules: attention, use_rslora: true}",
    "queries and values with DoRA": "{r: 8, target_modules: [q_proj, v_proj], use_dora: true}",
    "feed-forward": "{r: 128, target_modules: [down_proj, up_proj]}",
}


def sizes() -> list[str]:
    """One name of each size in the catalogue; how long a text may be changes no weight."""
    rows = {name: dict(row["config"]) for name, row in architecture.catalogue().items()}
    return [
        *{json.dumps(row | {"max_position_embeddings": 0}, sort_keys=True): name for name, row in rows.items()}.values()
    ]


@pytest.mark.parametrize("name", sizes())
def test_every_shipped_size_is_counted(name: str) -> None:
    """What transformers builds without memory."""
    whole = counts.parameters(recipe(name, "lora=null"))
    assert whole is not None
    assert whole.total == built(dict(architecture.catalogue()[name]["config"])).num_parameters()


@pytest.mark.parametrize("name", sizes())
def test_adapters_of_every_shipped_size_are_counted(tmp_path: Path, name: str) -> None:
    """What PEFT prints of them; of three layers, since all are alike."""
    config = dict(architecture.catalogue()[name]["config"]) | {"num_hidden_layers": 3}
    for lora in GRID.values():
        wanted = recipe(saved(tmp_path, config), f"lora={lora}")
        found, refused = counts.parameters(wanted), counts.unmatched(wanted)
        if refused:  # the experts of a mixture have neither
            continue
        trainable, everything = adapted(wanted, built(config)).get_nb_trainable_parameters()
        assert found is not None
        assert (found.trainable, found.total) == (trainable, everything - trainable)


TARGETS = ("q_proj", "gate_proj", "up_proj", "gate", "w1", "w2", "w3", "gate_up_proj", "down_proj", "experts", "proj")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("target", [*TARGETS, "self_attn", "mlp", "norm", "layers.9.self_attn.q_proj", "lm_head"])
def test_what_matches_nothing_is_what_the_worker_refuses(tmp_path: Path, name: str, target: str) -> None:
    wanted = recipe(saved(tmp_path, CONFIGS[name]), f"lora={{target_modules: [q_proj, {target}]}}")
    assert wanted.lora is not None
    try:
        settings.targets(wanted.lora, built(CONFIGS[name]))
        refused: tuple[str, ...] = ()
    except StageError:
        refused = (target,)
    assert counts.unmatched(wanted) == refused


@pytest.mark.parametrize(
    "lora", ["{use_dora: true}", "{dropout: 0.1}", "{dropout: 0.1, target_modules: [q_proj, gate]}"]
)
def test_what_cannot_have_dropout_or_dora_is_what_peft_refuses(tmp_path: Path, lora: str) -> None:
    wanted = recipe(saved(tmp_path, CONFIGS["mixtral"]), f"lora={lora}")
    assert counts.plain_only(wanted)
    with pytest.raises(ValueError, match="ParamWrapper does not work with"):
        adapted(wanted, built(CONFIGS["mixtral"]))


SAVED = ("all-linear", "attention with DoRA", "a list", "one layer")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("lora", [*(LORAS[each] for each in SAVED), "{target_modules: [embed_tokens, q_proj]}"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
def test_bytes_of_a_saved_adapter(tmp_path: Path, name: str, lora: str, precision: str) -> None:
    wanted = recipe(saved(tmp_path, CONFIGS[name]), f"lora={lora}", f"hardware.precision={precision}")
    model = adapted(wanted, built(CONFIGS[name], "cpu"))
    if precision == "bf16":
        cast_frozen(model)
    model.save_pretrained(tmp_path / "adapter")
    data = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    counted = counts.parameters(wanted)
    assert counted is not None
    assert counted.adapter_bytes == len(data) - 8 - int.from_bytes(data[:8], "little")


HELD = {
    "full": ("lora=null",),
    "full in bf16": ("lora=null", "hardware.precision=bf16", "model.dtype=bfloat16"),
    "adapters": (),
    "adapters, bf16 arithmetic": ("hardware.precision=bf16",),
    "adapters on bf16, fp32 arithmetic": ("model.dtype=bfloat16",),
    "adapters on bf16": ("hardware.precision=bf16", "model.dtype=bfloat16"),
    "adapters on one layer": ("hardware.precision=bf16", "lora.target_modules=[layers.0.self_attn.q_proj]"),
    "DoRA": ("hardware.precision=bf16", "lora.use_dora=true", "lora.target_modules=attention"),
}


@pytest.mark.parametrize("name", ["llama with biases", *SMALL])
@pytest.mark.parametrize("held", HELD)
def test_bytes_of_weights_and_gradients(tmp_path: Path, name: str, held: str) -> None:
    wanted = recipe(saved(tmp_path, CONFIGS[name]), *HELD[held])
    model = built(CONFIGS[name], "cpu", getattr(torch, training_dtype(wanted)))
    if wanted.lora is not None:
        model = adapted(wanted, model)
    if wanted.hardware.precision == "bf16":
        cast_frozen(model)
    found = counts.state_bytes(wanted)
    assert found is not None
    assert found["weights"] == sum(parameter.nbytes for parameter in model.parameters())
    assert found["gradients"] == sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", ["mixtral", "qwen2"])
@pytest.mark.parametrize("lora", ["null", "{r: 64}"])
@pytest.mark.parametrize("optimizer", settings.CLASSES)
def test_bytes_of_the_optimizers_state(tmp_path: Path, name: str, lora: str, optimizer: str) -> None:
    wide = CONFIGS[name] | {"hidden_size": 60}  # some tensors above and some below 4096 numbers, none a multiple of 256
    chosen = f"optimizer={{name: {optimizer}, learning_rate: 1e-3}}"
    wanted = recipe(saved(tmp_path, wide), f"lora={lora}", chosen)
    model = built(wide, "cpu")
    if wanted.lora is not None:
        model = adapted(wanted, model)
    arguments = TrainingArguments(str(tmp_path / "out"), use_cpu=True, **settings.optimizer(wanted.optimizer))
    built_optimizer = Trainer(model, arguments).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    built_optimizer.step()
    tables = ("step", "RMS", "qmap1", "qmap2")
    held = sum(
        value.nbytes
        for state in built_optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key not in tables
    )
    found = counts.state_bytes(wanted)
    assert found is not None
    assert found["optimizer"] == held


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("load", ["nf4", "int8"])
def test_bytes_of_quantized_weights(tmp_path: Path, name: str, load: str) -> None:
    wide = CONFIGS[name] | {"hidden_size": 96, "intermediate_size": 192}
    saved(tmp_path, wide)
    built(wide, "cpu").save_pretrained(tmp_path)
    wanted = recipe(tmp_path, f"quantization.load={load}", "model.dtype=bfloat16", "hardware.precision=bf16")
    model = models.load_base(wanted, training_dtype(wanted))
    held = sum(parameter.nbytes + scales(parameter) for parameter in model.parameters())
    found = counts.state_bytes(wanted)
    assert found is not None
    assert found["weights"] - found["gradients"] == held  # the adapters' numbers are held as their gradients are


def scales(parameter: Any) -> int:
    """Bytes of what bitsandbytes keeps beside a quantized weight, its lookup tables and single numbers left out."""
    if getattr(parameter, "SCB", None) is not None:
        return int(parameter.SCB.nbytes)
    state = getattr(parameter, "quant_state", None)
    return 0 if state is None else int(state.absmax.nbytes + state.state2.absmax.nbytes)
