"""Lion as the worker builds it is the published one (Chen et al., 2023, algorithm 2): three fp32 steps, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim import GlobalOptimManager
from transformers import Trainer

from sysml_run import document, resolve
from sysml_run.worker import settings

RATE, DECAY, BETA_1, BETA_2 = 0.1, 0.1, 0.9, 0.99


class One(torch.nn.Module):
    """A matrix that is decayed, of numbers that are all trained alike."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(numbers, 1, bias=False)
        torch.nn.init.ones_(self.layer.weight)


def built(model: One, name: str, folder: Path) -> Any:
    optimizer = {"name": name, "learning_rate": RATE, "weight_decay": DECAY, "lr_scheduler": "constant"}
    values = {
        "version": 1, "name": "one", "model": {"base_model": "tiny:llama"},
        "datasets": [{"path": "rows.jsonl", "type": "messages"}],
        "optimizer": optimizer, "training": {"max_steps": 3, "gradient_accumulation_steps": 1},
        "hardware": {"accelerator": "cpu", "precision": "fp32"},
    }  # fmt: skip
    recipe = resolve.resolve(document.parse(json.dumps(values), "one.yaml")).recipe
    trainer = Trainer(model=model, args=settings.arguments(recipe, str(folder)))
    return trainer.create_optimizer()


def published(weight: torch.Tensor, momentum: torch.Tensor, gradient: torch.Tensor) -> tuple[Any, Any]:
    """The weight and the momentum after a step; torch multiplies and adds in one rounding where `alpha` is given."""
    step = torch.sign((BETA_1 * momentum).add(gradient, alpha=1 - BETA_1))
    return (weight * (1 - RATE * DECAY)).add(step, alpha=-RATE), (BETA_2 * momentum).add(gradient, alpha=1 - BETA_2)


def steps(gradients: Sequence[float], folder: Path) -> tuple[list[float], list[float]]:
    """The weight, 1 before, and the momentum after each step."""
    model = One(1)
    optimizer, weights, momenta = built(model, "lion", folder), [], []
    for gradient in gradients:
        model.layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        weights.append(model.layer.weight.item())
        momenta.append(optimizer.state[model.layer.weight]["state1"].item())
    return weights, momenta


@pytest.mark.parametrize(
    ("gradients", "weights", "momenta"),
    [
        ([-0.5], [1.09], [-0.005]),
        ([0.0], [0.99], [0.0]),  # nothing moves it but the decay: a sign of 0 is 0
        ([0.5, -0.1], [0.89, 0.9811], [0.005, 0.00395]),  # the second step goes by what beta 1 mixes, not by momentum
    ],
)
def test_by_hand(gradients: list[float], weights: list[float], momenta: list[float], tmp_path: Path) -> None:
    found = steps(gradients, tmp_path)
    assert found[0] == pytest.approx(weights, rel=1e-6)
    assert found[1] == pytest.approx(momenta, rel=1e-6)


def test_three_steps_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = One(8192)
    torch.nn.init.normal_(model.layer.weight)
    optimizer, weight = built(model, "lion", tmp_path), model.layer.weight.detach().clone()
    momentum = torch.zeros_like(weight)
    for _ in range(3):
        model.layer.weight.grad = gradient = torch.randn_like(weight)
        optimizer.step()
        weight, momentum = published(weight, momentum, gradient)
        assert torch.equal(model.layer.weight.detach(), weight)
        assert torch.equal(optimizer.state[model.layer.weight]["state1"], momentum)


def test_in_8_bits_only_the_momentum_is_rounded(tmp_path: Path) -> None:
    GlobalOptimManager.get_instance().initialize()  # it knows embeddings of other tests by an id that may be used again
    torch.manual_seed(1)
    model = One(8192)
    optimizer = built(model, "lion_8bit", tmp_path)
    model.layer.weight.grad = gradient = torch.randn(1, 8192)
    optimizer.step()
    weight, momentum = published(torch.ones(1, 8192), torch.zeros(1, 8192), gradient)
    assert torch.equal(model.layer.weight.detach(), weight)
    state = optimizer.state[model.layer.weight]
    assert state["state1"].dtype == torch.uint8
    rounded = state["qmap1"][state["state1"].long()].flatten() * state["absmax1"].repeat_interleave(256)
    torch.testing.assert_close(rounded, momentum.flatten(), atol=3e-4, rtol=0.1)
