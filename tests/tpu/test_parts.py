"""Pieces of the XLA worker on the processor's own tensors: expert forwards, masks, and which dimension is divided."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from sysml_run.errors import StageError
from sysml_run.worker.xla import device, experts, loss
from sysml_run.worker.xla.compilations import Compilations
from sysml_run.worker.xla.sharding import spec
from sysml_run.worker.xla.trainer import Trainer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 96, "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize("name", [experts.FUSED, experts.LOOPED])
def test_static_experts_are_the_published_ones(name: str) -> None:
    """Outputs and gradients of every weight, the router's among them."""
    torch.manual_seed(1)
    model = MixtralForCausalLM(MixtralConfig(**SIZES))
    ids = torch.randint(0, 96, (3, 20))
    experts.register()

    def run(forward: str) -> list[torch.Tensor]:
        model.set_experts_implementation(forward)
        model.zero_grad()
        output = model(input_ids=ids, labels=ids)
        output.loss.backward()
        return [output.logits.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    for ours, published in zip(run(name), run("eager"), strict=True):
        torch.testing.assert_close(ours, published, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "chosen"), [(16384, experts.FUSED), (16385, experts.LOOPED)])
def test_which_one_follows_from_the_size(tokens: int, chosen: str) -> None:
    """At the sizes of 8x7B fused products are for few tokens; a dense model has no experts."""
    sizes = {"num_local_experts": 8, "intermediate_size": 1024}
    assert experts.choose(tokens, SimpleNamespace(**sizes)) == chosen
    assert experts.choose(4096, SimpleNamespace(**sizes | {"intermediate_size": 14336})) == experts.LOOPED
    assert experts.choose(tokens, LlamaConfig()) is None


def test_a_batch_in_training_is_known_by_its_size() -> None:
    """Running out of memory is told with it; without it, it would be called the evaluation's."""
    model = LlamaForCausalLM(LlamaConfig(**{name: size for name, size in SIZES.items() if "expert" not in name}))
    stub = SimpleNamespace(compilations=Compilations(), aux_loss_enabled=False, counted=0, batch=None)
    rows = torch.randint(0, 96, (3, 20))
    batch = {"input_ids": rows, "labels": rows, "attention_mask": torch.ones_like(rows)}
    assert bool(torch.isfinite(Trainer.compute_loss(stub, model, batch, num_items_in_batch=57)))
    assert stub.batch == (3, 20)


@pytest.mark.parametrize("window", [None, 3])
def test_packed_rows_see_what_transformers_lets_them(window: int | None) -> None:
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0], [0, 0, 0, 1, 2, 3, 4, 5]])
    config = LlamaConfig(attn_implementation="eager")
    config.sliding_window = window
    make: Any = create_sliding_window_causal_mask if window else create_causal_mask
    theirs = make(config, torch.zeros(2, 8, 4), None, None, places)
    assert bool((loss.packed_mask(config, places) == theirs).all())


def test_layers_that_attend_differently_are_refused_when_packed() -> None:
    config = SimpleNamespace(layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(StageError, match="attend differently"):
        loss.packed_mask(config, torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("shape", "devices", "divided"),
    [((64, 32), 8, 0), ((32, 64), 8, 1), ((1001, 64), 8, 1), ((7, 5), 4, 0), ((4, 256, 64), 4, 1), ((64,), 8, 0)],
)
def test_which_dimension_is_divided(shape: tuple[int, ...], devices: int, divided: int) -> None:
    found = spec(shape, devices)
    assert [place for place, axis in enumerate(found) if axis] == [divided]
    assert spec((), devices) == ()


@pytest.mark.parametrize("name", device.DOWNCASTS)
def test_weights_in_bf16_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in device.DOWNCASTS:
        monkeypatch.setenv(each, "0")
    monkeypatch.setenv(name, "1")
    with pytest.raises(StageError, match=f"{name} is set"):
        device.ready()


def test_lion_is_the_published_one() -> None:
    """Chen et al. 2023, algorithm 2, which bitsandbytes computes on other hardware: three steps, to the bit."""
    from lion_pytorch import Lion

    torch.manual_seed(1)
    ours = torch.nn.Parameter(torch.randn(8, 8))
    theirs, momentum, rate, decay = ours.detach().clone(), torch.zeros(8, 8), 1e-3, 0.1
    optimizer = Lion([ours], lr=rate, betas=(0.9, 0.99), weight_decay=decay)
    for _ in range(3):
        ours.grad = torch.randn(8, 8)
        optimizer.step()
        theirs = theirs * (1 - rate * decay) - rate * torch.sign(0.9 * momentum + 0.1 * ours.grad)
        momentum = 0.99 * momentum + 0.01 * ours.grad
    torch.testing.assert_close(ours.detach(), theirs, atol=1e-7, rtol=0)
