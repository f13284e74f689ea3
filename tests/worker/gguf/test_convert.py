"""What is written is what transformers computes, and what llama.cpp's own quantizer writes."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sysml_run.errors import StageError
from sysml_run.worker import models
from sysml_run.worker.gguf import layout, read, types

from .conftest import Make, convert, llama, needs_llama

ROPE3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPE3 |= {"rope_theta": 10000.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": ROPE3}),
    ("llama", {"rope_parameters": LINEAR, "head_dim": 32}),
    ("mistral", {}),
    ("mixtral", {}),
    ("qwen2", {}),
]
NAMES = ["llama", "tied", "llama 3", "stretched", "mistral", "mixtral", "qwen2"]
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8}
ROUNDING = 1.01  # llama.cpp, compiled for this processor, rounds once where a product is added
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
TEXT = "finding 17: the state of {host} is grave, and nobody knows why"


def expected(folder: Path) -> tuple[list[int], Any]:
    """Token ids and the logits of transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(TEXT).input_ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return ids, model(torch.tensor([ids])).logits[0].numpy()


@needs_llama
@pytest.mark.parametrize(("architecture", "more"), MODELS, ids=NAMES)
def test_llama_cpp_computes_the_same_logits(make_model: Make, architecture: str, more: dict[str, Any]) -> None:
    folder = make_model(architecture, **more)
    ids, wanted = expected(folder)
    assert abs(wanted).max() > 0.5
    for kind in ("F32", "F16"):
        path, _ = convert(folder, kind)
        with llama(path, logits_all=True) as model:
            model.eval(ids)
            assert np.abs(model.scores[: len(ids)] - wanted).max() < 1e-2


@pytest.mark.parametrize(("architecture", "more"), [*MODELS[:1], ("mixtral", {}), ("qwen3", {"head_dim": 32})])
def test_a_file_is_read_back_without_llama_cpp(
    make_model: Make, architecture: str, more: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_model(architecture, **more)
    path, _ = convert(folder, "BF16")
    read.dequantize(path, folder, tmp_path)
    for name in TOKENIZER:
        shutil.copyfile(folder / name, tmp_path / name)
    assert np.abs(expected(tmp_path)[1] - expected(folder)[1]).max() < 5e-2


@needs_llama
@pytest.mark.parametrize("kind", ["Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"])
@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("llama", WIDE),
        ("llama", {"tie_word_embeddings": True}),
        ("mixtral", WIDE | {"num_local_experts": 8, "intermediate_size": 256}),
    ],
    ids=["wide", "narrow and tied", "8 experts"],
)
def test_types_and_errors_are_llama_cpps(make_model: Make, architecture: str, more: dict[str, Any], kind: str) -> None:
    import gguf
    import llama_cpp

    folder = make_model(architecture, **more)
    ours, facts = convert(folder, kind)
    whole = folder / "F32.gguf"
    if not whole.is_file():
        convert(folder, "F32")
    theirs = folder / "theirs.gguf"
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype = 1, gguf.LlamaFileType[f"MOSTLY_{kind}"]
    assert llama_cpp.llama_model_quantize(str(whole).encode(), str(theirs).encode(), settings) == 0
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(ours).tensors}
    exact = {tensor.name: tensor.data for tensor in gguf.GGUFReader(whole).tensors}
    for tensor in gguf.GGUFReader(theirs).tensors:
        mine, values = found[tensor.name], exact[tensor.name]
        assert mine.tensor_type == tensor.tensor_type, tensor.name
        errors = [np.square(gguf.dequantize(each.data, each.tensor_type) - values).mean() for each in (mine, tensor)]
        assert errors[0] <= errors[1] * ROUNDING, tensor.name
    narrow = "hidden_size" not in more and kind != "Q8_0"
    assert any("takes rows of a multiple of 256" in note for note in facts["notes"]) == narrow


def test_the_types_of_large_models() -> None:
    seventy = types.Model(80, 64, 8, 0, False)
    assert types.tensor_type("Q4_K_M", "blk.12.attn_v.weight", (1024, 8192), seventy) == "Q6_K"
    assert types.tensor_type("Q4_K_M", "blk.11.attn_v.weight", (1024, 8192), seventy) == "Q5_K"
    assert types.tensor_type("Q4_K_M", "blk.11.attn_q.weight", (8192, 8192), seventy) == "Q4_K"
    assert types.tensor_type("Q4_K_M", "blk.11.attn_q.weight", (8192, 100), seventy) == "F16"


def test_a_window_that_llama_cpp_does_not_have_is_said(make_model: Make) -> None:
    _, facts = convert(make_model("mistral", sliding_window=128), "F16")
    assert facts["notes"] == [
        "the model looks back 128 tokens, llama.cpp at all of them: longer texts are answered differently"
    ]


def test_models_that_are_not_converted(make_model: Make, tmp_path: Path) -> None:
    folder = copied(make_model("llama"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "phi3"}))
    with pytest.raises(StageError, match="phi3 models are not converted to GGUF"):
        convert(folder, "F16")
    stretched = config | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}
    (folder / "config.json").write_text(json.dumps(stretched))
    with pytest.raises(StageError, match="positions stretched by yarn"):
        convert(folder, "F16")


def copied(folder: Path, target: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(folder, target / "copy"))


def test_weights_that_have_no_place_or_are_missing() -> None:
    config = {"model_type": "mixtral", "num_attention_heads": 4, "num_local_experts": 2}
    with pytest.raises(StageError, match=r"no place for the weight model\.layers\.0\.mlp\.experts\.gate_up_proj"):
        layout.parts(["model.layers.0.mlp.experts.gate_up_proj"], config)
    names = ["model.embed_tokens.weight", "model.layers.0.block_sparse_moe.experts.1.w2.weight"]
    with pytest.raises(StageError, match=r"missing of blk\.0\.ffn_down_exps\.weight, output_norm\.weight"):
        layout.parts(names, config)


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_of_the_disk(make_model: Make) -> None:
    folder = make_model("llama")
    with little_room(100_000), pytest.raises(OSError, match="65536 requested and"):
        convert(folder, "F16")


def test_answers_do_not_depend_on_how_the_weights_are_split(make_model: Make, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_model("mixtral")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="100kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    for name in TOKENIZER:
        shutil.copyfile(folder / name, tmp_path / name)
    one, several = convert(folder, "F16")[0], convert(tmp_path, "F16")[0]
    assert models.sha256(one) == models.sha256(several)
