"""What is collected is what the layers are given, and with it the inputs that count are kept better."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sysml_run.errors import StageError
from sysml_run.worker.gguf import convert as converting
from sysml_run.worker.gguf import importance

from .conftest import Make, convert

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
ROWS = [[(7 * row * place + place) % 500 for place in range(40)] for row in range(1, 7)]


def skewed(folder: Path, target: Path) -> Path:
    """The model with norms that let some numbers count a hundred times as much as others, as in trained ones."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    drawn = torch.Generator().manual_seed(3)
    weights = load_file(target / "model.safetensors")
    for name, each in weights.items():
        if name.endswith("norm.weight"):
            each *= torch.exp(1.5 * torch.randn(each.shape, generator=drawn))
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def tensors(path: Path) -> dict[str, Any]:
    import gguf

    return {each.name: each for each in gguf.GGUFReader(path).tensors}


def written(folder: Path, kind: str, means: Any = None) -> tuple[Path, Any]:
    """The file made with what was collected, and what was said of it."""
    path, facts = convert(folder, kind, means=means)
    return Path(path.rename(path.with_name(f"{kind}-{means is not None}.gguf"))), facts


def given(folder: Path, part: str, rows: list[list[int]] = ROWS) -> Any:
    """All that modules whose names end with `part` are given, in order of the layers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        if name.endswith(part):
            module.register_forward_pre_hook(lambda _, inputs, at=name: found.setdefault(at, []).append(inputs[0][0]))
    with torch.inference_mode():
        for row in rows:
            model(torch.tensor([row]))
    return [torch.cat(each) for each in found.values()]


def test_it_is_the_mean_of_the_squares(make_model: Make) -> None:
    folder = make_model("llama", **WIDE)
    found = importance.collect(folder, ROWS)
    assert len(found.means) == 2 * 7 + 1
    assert found.notes == []
    places = {"self_attn.v_proj": "blk.1.attn_v", "mlp.down_proj": "blk.1.ffn_down", "lm_head": "output"}
    for part, name in places.items():
        wanted = given(folder, part)[-1].square().mean(0)
        np.testing.assert_allclose(found.means[f"{name}.weight"], wanted[None], rtol=1e-4)


@pytest.mark.parametrize("more", [{}, {"tie_word_embeddings": True}], ids=["head", "tied"])
@pytest.mark.parametrize("kind", ["Q4_K_M", "Q5_K_M", "Q6_K"])
def test_inputs_that_count_are_kept_better(make_model: Make, tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    """The error of every matrix's outputs, inputs taken one by one, and the bytes of all that is no such matrix."""
    import gguf

    folder = skewed(make_model("llama", **WIDE, **more), tmp_path / "skewed")
    means = importance.collect(folder, ROWS).means
    exact = {name: each.data for name, each in tensors(convert(folder, "F32")[0]).items()}
    without, weighed = (tensors(written(folder, kind, each)[0]) for each in (None, means))
    ratios = []
    for name, each in without.items():
        assert each.tensor_type == weighed[name].tensor_type
        if name not in means:
            assert (each.data == weighed[name].data).all()
            continue
        sides = (gguf.dequantize(side.data, side.tensor_type) for side in (weighed[name], each))
        better, worse = (float((np.square(side - exact[name]) * means[name]).sum()) for side in sides)
        assert better < worse, name
        ratios.append(better / worse)
    assert len(ratios) == len(means) - bool(more)
    assert np.mean(ratios) < 0.95


def test_narrow_matrices_are_weighed_too(make_model: Make, tmp_path: Path) -> None:
    """Rows of 64 are in Q5_0, which heeds it as K-quants do."""
    import gguf

    folder = skewed(make_model("llama"), tmp_path / "skewed")
    means = importance.collect(folder, ROWS).means
    without, weighed = (tensors(written(folder, "Q4_K_M", each)[0]) for each in (None, means))
    exact = tensors(convert(folder, "F32")[0])["blk.0.attn_q.weight"].data
    errors = []
    for side in (weighed, without):
        found = side["blk.0.attn_q.weight"]
        assert found.tensor_type == gguf.GGMLQuantizationType.Q5_0
        values = gguf.dequantize(found.data, found.tensor_type)
        errors.append((np.square(values - exact) * means["blk.0.attn_q.weight"]).sum())
    assert errors[0] < 0.9 * errors[1]


def parted(folder: Path, layer: int) -> tuple[dict[str, Any], Any, Any]:
    """By the checkpoint's own weights: those of a layer's experts, its tokens, and which experts each is sent to."""
    from safetensors.torch import load_file

    start = f"model.layers.{layer}.block_sparse_moe."
    weights = load_file(folder / "model.safetensors")
    found = {name.removeprefix(start): each for name, each in weights.items() if name.startswith(start)}
    tokens = given(folder, ".mlp")[layer]
    return found, tokens, (tokens @ found["gate.weight"].T).topk(2).indices


def test_experts_count_the_tokens_they_are_sent(make_model: Make) -> None:
    folder = make_model("mixtral", **WIDE, **EXPERTS)
    found = importance.collect(folder, ROWS)
    assert found.notes == []
    for layer in range(2):
        weights, tokens, chosen = parted(folder, layer)
        for number in range(8):
            own = tokens[(chosen == number).any(-1)]
            middle = torch.nn.functional.silu(own @ weights[f"experts.{number}.w1.weight"].T)
            middle = middle * (own @ weights[f"experts.{number}.w3.weight"].T)
            for part, each in (("gate", own), ("up", own), ("down", middle)):
                means = found.means[f"blk.{layer}.ffn_{part}_exps.weight"]
                assert means.shape == (8, each.shape[-1])
                np.testing.assert_allclose(means[number], each.square().mean(0), rtol=1e-3)


def test_each_expert_is_weighed_by_its_own(make_model: Make) -> None:
    """The bytes of one expert do not depend on what counts for another."""
    folder = make_model("mixtral", **WIDE, **EXPERTS)
    name = "blk.0.ffn_gate_exps.weight"
    means = importance.collect(folder, ROWS).means
    one = tensors(written(folder, "Q4_K_M", means)[0])[name].data.copy()
    means[name][3] = means[name][3][::-1]
    other = tensors(written(folder, "Q4_K_M", means)[0])[name].data
    assert [bool((mine == its).all()) for mine, its in zip(one, other, strict=True)] == [at != 3 for at in range(8)]


def test_an_expert_that_no_token_reached_is_said(make_model: Make) -> None:
    """One token over and over: all its places are sent to the same two experts."""
    folder = make_model("mixtral", **WIDE, **EXPERTS)
    found = importance.collect(folder, [[17] * 12])
    sentence = "no calibration token reached 6 experts of layer {}: the mean of its others counts for them"
    assert found.notes == [sentence.format(0), sentence.format(1)]
    means = found.means["blk.0.ffn_gate_exps.weight"]
    wanted = given(folder, ".mlp", [[17] * 12])[0].square().mean(0)
    np.testing.assert_allclose(means, np.broadcast_to(wanted, means.shape), rtol=1e-4)


def test_a_block_in_which_nothing_counts_is_not_lost() -> None:
    """libgguf writes zeros where all weights of a block are zero."""
    import gguf

    rows = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    for dead in (slice(0, 256), slice(0, 512)):
        sums, inputs = importance.Sums(), torch.ones(3, 512)
        inputs[:, dead] = 0
        sums.add("x", inputs)
        made = converting.encoded(rows, "Q4_K", importance.mean(sums.found["x"]))
        assert np.square(gguf.dequantize(made, gguf.GGMLQuantizationType.Q4_K) - rows).mean() < 0.01


def test_the_model_is_read_from_whole_weights(make_model: Make, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(make_model("llama"), tmp_path / "short"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"mlp\.up_proj"):
        importance.collect(folder, ROWS)
