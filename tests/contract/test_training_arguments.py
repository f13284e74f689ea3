"""The recipe's optimizer and schedule, built by the real Trainer: classes, numbers, and each step's learning rate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import Trainer as HFTrainer

from sysml_run import document, resolve, schema
from sysml_run.recipe import Recipe
from sysml_run.worker import settings

STEPS = 20
RATE = 4e-3
OPTIMIZERS = {one["properties"]["name"]["const"]: one for one in schema.load()["properties"]["optimizer"]["oneOf"]}
SCHEDULERS = OPTIMIZERS["adamw"]["properties"]["lr_scheduler"]["enum"]
BITS_8 = ("adamw_8bit", "lion_8bit")


def recipe(optimizer: dict[str, Any], **sections: Any) -> Recipe:
    values = {
        "version": 1,
        "name": "one",
        "model": {"base_model": "tiny:llama"},
        "datasets": [{"path": "rows.jsonl", "type": "messages"}],
        "optimizer": {"learning_rate": RATE, **optimizer},
        "training": {"max_steps": STEPS, "gradient_accumulation_steps": 1},
        "hardware": {"accelerator": "cpu", "precision": "fp32"},
    }
    return resolve.resolve(document.parse(json.dumps(values | sections), "r.yaml")).recipe


@pytest.fixture
def model() -> LlamaForCausalLM:
    """One layer with biases and norms; a matrix has more numbers than bitsandbytes keeps in 32 bits regardless."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def build(model: LlamaForCausalLM, tmp_path: Path) -> Callable[..., HFTrainer]:
    def make(optimizer: dict[str, Any], steps: int = STEPS) -> HFTrainer:
        trainer = HFTrainer(model=model, args=settings.arguments(recipe(optimizer), str(tmp_path / "out")))
        trainer.create_optimizer_and_scheduler(steps)
        return trainer

    return make


def backward(model: Any) -> None:
    ids = torch.randint(0, 128, (2, 8), generator=torch.Generator().manual_seed(1))
    model(input_ids=ids, labels=ids).loss.backward()


def test_every_optimizer_has_a_class() -> None:
    assert set(settings.CLASSES) == set(OPTIMIZERS)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_arguments_are_accepted(optimizer: str, scheduler: str, tmp_path: Path) -> None:
    made = settings.arguments(recipe({"name": optimizer, "lr_scheduler": scheduler}), str(tmp_path / "out"))
    assert made.optim == OPTIMIZERS[optimizer]["x-optim"]
    assert made.learning_rate == RATE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_class_and_its_numbers(name: str, build, model: LlamaForCausalLM) -> None:
    written: dict[str, Any] = {"name": name, "weight_decay": 0.3}
    properties = OPTIMIZERS[name]["properties"]
    written |= {key: value for key, value in (("betas", [0.8, 0.7]), ("epsilon", 1e-5)) if key in properties}
    optimizer = build(written).optimizer
    assert f"{type(optimizer).__module__}.{type(optimizer).__qualname__}" == settings.CLASSES[name]
    for group in optimizer.param_groups:
        assert group["initial_lr"] == RATE
        if "betas" in written:
            assert tuple(group["betas"]) == (0.8, 0.7)
        if "epsilon" in written:
            assert group["eps"] == 1e-5
    names = {id(parameter): each for each, parameter in model.named_parameters()}
    decay = {names[id(one)]: group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}
    assert set(decay) == set(names.values())
    spared = {each for each in decay if "norm" in each or each.endswith("bias")}
    assert len(spared) == 7
    assert decay == {each: 0.0 if each in spared else 0.3 for each in decay}


def test_numbers_of_one_optimizer_only(build) -> None:
    sgd = build({"name": "sgd"}).optimizer.param_groups[0]
    assert (sgd["momentum"], sgd["nesterov"]) == (0, False)


def test_adafactor_keeps_to_the_learning_rate(build) -> None:
    group = build({"name": "adafactor"}).optimizer.param_groups[0]
    assert (group["relative_step"], group["scale_parameter"], group["warmup_init"]) == (False, False, False)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_the_weights_and_keeps_its_state_in_the_bits_that_the_name_says(
    name: str, build, model: LlamaForCausalLM
) -> None:
    optimizer = build({"name": name, "lr_scheduler": "constant"}).optimizer
    weight = model.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    backward(model)
    optimizer.step()
    assert not torch.equal(weight, before)
    kept = [each.dtype for each in optimizer.state[weight].values() if getattr(each, "shape", None) == weight.shape]
    assert set(kept) == ({torch.uint8} if name in BITS_8 else {torch.float32} if kept else set())


def expected(scheduler: str, step: int, warmup: int, floor: float = 0.0, cycles: int = 1) -> float:
    """The share of the highest learning rate at a step, by the definitions in the schema."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (STEPS - warmup)
    match scheduler:
        case "linear":
            return 1 - done
        case "cosine":
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        case "cosine_with_restarts":
            return 0.5 * (1 + math.cos(math.pi * (cycles * done % 1.0))) if done < 1 else 0.0
        case "constant" | "reduce_lr_on_plateau":  # which falls by the validation loss: tests/worker/test_plateau.py
            return 1.0
        case "inverse_sqrt":
            return math.sqrt(warmup / step)
    raise AssertionError(scheduler)


CURVES: list[tuple[str, dict[str, Any], int, float, int]] = [
    *((name, {"warmup_steps": 4}, 4, 0.0, 1) for name in SCHEDULERS),
    *((name, {"warmup_ratio": 0.11}, 3, 0.0, 1) for name in SCHEDULERS),
    *((name, {}, 0, 0.0, 1) for name in SCHEDULERS if name != "inverse_sqrt"),
    ("linear", {"warmup_steps": 0}, 0, 0.0, 1),
    ("linear", {"warmup_steps": 1}, 1, 0.0, 1),
    ("linear", {"warmup_ratio": 0.0}, 0, 0.0, 1),
    ("cosine", {"warmup_steps": 4, "min_lr_ratio": 0.1}, 4, 0.1, 1),
    ("cosine", {"min_lr_ratio": 0.5}, 0, 0.5, 1),
    ("cosine_with_restarts", {"warmup_steps": 4, "num_cycles": 2}, 4, 0.0, 2),
]


@pytest.mark.parametrize(("scheduler", "written", "warmup", "floor", "cycles"), CURVES)
def test_the_learning_rate_of_every_step(
    scheduler: str, written: dict[str, Any], warmup: int, floor: float, cycles: int, build, model: Any
) -> None:
    trainer = build({"name": "adamw", "lr_scheduler": scheduler, **written})
    measured = []
    for _ in range(STEPS + 1):
        measured.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    curve = [RATE * expected(scheduler, step, warmup, floor, cycles) for step in range(STEPS + 1)]
    assert measured == pytest.approx(curve, rel=1e-9, abs=1e-12)
    assert measured[0] == (0.0 if warmup else RATE)
    assert measured[warmup] == pytest.approx(RATE)
    assert max(measured) == pytest.approx(RATE)
    if scheduler in ("linear", "cosine", "cosine_with_restarts"):
        assert measured[STEPS] == pytest.approx(floor * RATE, abs=1e-12)


def test_inverse_sqrt_without_warm_up_falls_slowly(build, model: Any) -> None:
    """transformers counts from step 10,000 when there is no warm-up: the rate is all but constant in a short run."""
    trainer = build({"name": "adamw", "lr_scheduler": "inverse_sqrt"})
    for _ in range(STEPS):
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(RATE * math.sqrt(10_000 / (10_000 + STEPS)))


SAVING: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {"save_strategy": "epoch", "eval_strategy": "no", "load_best_model_at_end": False}),
    ({"save_steps": 6}, {}, {"save_strategy": "steps", "save_steps": 6}),
    ({}, {"every_steps": 3}, {"save_strategy": "epoch", "eval_strategy": "steps", "eval_steps": 3}),
    (
        {"save_steps": 6, "keep_checkpoints": 1},
        {"every_steps": 3, "best": {}},
        {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False},
    ),
]


@pytest.mark.parametrize(("training", "evaluation", "wanted"), SAVING)
def test_saving_and_measuring(training: dict[str, Any], evaluation: dict[str, Any], wanted: dict[str, Any]) -> None:
    asked = recipe({"name": "adamw"}, training={"max_steps": 9} | training, evaluation=evaluation)
    made = settings.arguments(asked, "out")
    assert {key: getattr(made, key) for key in wanted} == wanted
    assert made.save_total_limit == asked.training.keep_checkpoints


@pytest.mark.parametrize("on", [True, False])
def test_activation_checkpointing(on: bool) -> None:
    made = settings.arguments(recipe({"name": "adamw"}, training={"max_steps": 9, "gradient_checkpointing": on}), "out")
    assert made.activation_checkpointing is on
    assert made.gradient_checkpointing is on


@pytest.mark.parametrize(("precision", "bf16"), [("bf16", True), ("fp32", False)])
def test_precision_seed_and_length(precision: str, bf16: bool) -> None:
    hardware = {"accelerator": "cpu", "precision": precision}
    made = settings.arguments(
        recipe({"name": "adamw"}, hardware=hardware, seed=7, training={"num_epochs": 1.5, "micro_batch_size": 3}), "out"
    )
    assert (made.bf16, made.fp16, made.use_cpu) == (bf16, False, True)
    assert (made.seed, made.data_seed) == (7, 7)
    assert (made.num_train_epochs, made.max_steps, made.per_device_train_batch_size) == (1.5, -1, 3)
    assert made.report_to == []
