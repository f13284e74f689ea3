"""GPTQ of tiny models: nearer than rounding, loaded by plain transformers in a process of its own."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.worker import gptq, tiny

ROOT = Path(__file__).parents[2]
BITS, GROUP = 4, 32
TEXT = "finding {0}: the state of host {1} is {2}, port {1} is open and {2} is what it was before"
MAKE = """
import json, sys
from pathlib import Path
from datasets import Dataset
from sysml_run.resolve import build
from sysml_run.worker import gptq
folder = Path(sys.argv[1])
recipe = build(json.loads((folder / "recipe.json").read_text()))
for name in sys.argv[2:]:
    made = folder / f"{name}-gptq"
    made.mkdir()
    rows = Dataset.from_list(json.loads((folder / "rows.json").read_text()))
    facts = gptq.make(folder / name, made, recipe.quantization.export[0], rows, recipe)
    (made / "facts.json").write_text(json.dumps(facts))
"""
LOAD = """
import os, sys
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
import torch
torch._dynamo.config.disable = True
from transformers import AutoModelForCausalLM
folder = sys.argv[1]
if "mixtral" in folder:
    import defuser
    defuser.replace_fused_blocks("mixtral")
model, info = AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, device_map="cpu", output_loading_info=True
)
assert not info["missing_keys"], info
with torch.inference_mode():
    torch.save(model(torch.tensor([eval(sys.argv[2])])).logits[0].float(), folder + "/logits.pt")
"""
installed = [each.name.lower() for each in importlib.metadata.distributions()]
needs_gptq = pytest.mark.skipif(
    "gptqmodel" not in installed, reason="GPTQModel is not installed: make test installs it"
)


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.make_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = ("calm", "odd", "grave")
    return [tokenizer(TEXT.format(number, number * 7, words[number % 3])).input_ids for number in range(40)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ids: list[list[int]]) -> Path:
    """A folder with a tiny Llama and a tiny Mixtral, and what GPTQModel made of each."""
    from sysml_run import document, resolve

    folder = tmp_path_factory.mktemp("gptq")
    tiny.make_tokenizer(folder / "tokenizer")
    for name in ("llama", "mixtral"):
        tiny.make_model(name, folder / "tokenizer", folder / name)
    values = {
        "version": 1,
        "name": "test",
        "model": {"base_model": "tiny:llama", "dtype": "float32"},
        "datasets": [{"path": "rows.jsonl", "type": "messages"}],
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "training": {"num_epochs": 1},
        "quantization": {
            "export": [{"method": "gptq", "bits": BITS, "group_size": GROUP, "calibration": {"samples": 24}}]
        },
    }
    resolved = resolve.resolve(document.parse(json.dumps(values), "recipe.yaml"))
    (folder / "recipe.json").write_text(json.dumps(resolved.values))
    rows = [{"id": f"row {number}", "input_ids": row, "length": len(row)} for number, row in enumerate(ids)]
    (folder / "rows.json").write_text(json.dumps(rows))
    python(MAKE, str(folder), "llama", "mixtral")
    return folder


def python(script: str, *arguments: str) -> None:
    """In a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "runner"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "INFO" not in done.stdout or script == LOAD, "what GPTQModel says belongs in the log"


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()}


def unpacked(packed: Any) -> Any:
    """Eight numbers of 4 bits from each 32-bit one, along the first dimension."""
    shifts = torch.arange(0, 32, BITS, dtype=torch.int32)
    return ((packed[:, None] >> shifts[None, :, None]) & 15).flatten(0, 1)


def dequantized(found: dict[str, Any], name: str) -> Any:
    """(outputs, inputs) by the format's definition: (number - zero) * scale, zeros being stored less one."""
    numbers, scales = unpacked(found[f"{name}.qweight"]), found[f"{name}.scales"].float()
    zeros = unpacked(found[f"{name}.qzeros"].T.contiguous()).T + 1
    group = found[f"{name}.g_idx"].long()
    return ((numbers - zeros[group]) * scales[group]).T


def rounded(weight: Any) -> Any:
    """To the nearest of the same 16 values a group."""
    groups = weight.view(weight.shape[0], -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True) / 7.5
    return ((groups / scale).round().clamp(-8, 7) * scale).view_as(weight)


@needs_gptq
def test_it_is_nearer_than_rounding_on_the_same_inputs(made: Path, ids: list[list[int]]) -> None:
    """Of every matrix of a decoder layer: the error of its outputs on what the unquantized model gives it."""
    model, found = plain(made / "llama"), tensors(made / "llama-gptq")
    inputs: dict[str, list[Any]] = {}
    linears = {name: each for name, each in model.named_modules() if name.endswith("_proj")}
    for name, each in linears.items():
        each.register_forward_hook(lambda _, given, __, name=name: inputs.setdefault(name, []).append(given[0][0]))
    with torch.inference_mode():
        for row in ids:
            model(torch.tensor([row]))
        errors = [0.0, 0.0]
        for name, each in linears.items():
            given = torch.cat(inputs[name])
            for side, other in enumerate((dequantized(found, name), rounded(each.weight))):
                errors[side] += float((given @ (each.weight - other).T).square().sum())
    assert len(linears) == 14
    assert 0 < errors[0] < 0.9 * errors[1]


@needs_gptq
def test_experts_are_nearer_than_rounding_too(made: Path, ids: list[list[int]]) -> None:
    """Of every matrix of every expert: the error of its outputs on the tokens that the unquantized router sends it."""
    whole, found = tensors(made / "mixtral"), tensors(made / "mixtral-gptq")
    names = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
    errors = {name: [0.0, 0.0] for name in names}
    sent = 0
    for layer, tokens in enumerate(into_experts(made / "mixtral", ids)):
        start = f"model.layers.{layer}"
        chosen = (tokens @ whole[f"{start}.block_sparse_moe.gate.weight"].T).topk(2).indices
        for expert in range(4):
            own = tokens[(chosen == expert).any(-1)]
            w = {name: whole[f"{start}.block_sparse_moe.experts.{expert}.{name}.weight"] for name in names}
            middle = torch.nn.functional.silu(own @ w["w1"].T) * (own @ w["w3"].T)
            sent += len(own)
            for name, theirs in names.items():
                given = middle if name == "w2" else own
                copy = dequantized(found, f"{start}.mlp.experts.{expert}.{theirs}")
                for side, other in enumerate((copy, rounded(w[name]))):
                    errors[name][side] += float((given @ (w[name] - other).T).square().sum())
    assert sent == 2 * 2 * sum(len(row) for row in ids)
    for mine, nearest in errors.values():
        assert 0 < mine < 0.9 * nearest, errors


def into_experts(folder: Path, ids: list[list[int]]) -> list[Any]:
    """What every layer's router and experts are given: (tokens, columns) for each layer."""
    model, found = plain(folder), {}
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda part, given: found.setdefault(part, []).append(given[0][0]))
    with torch.inference_mode():
        for row in ids:
            model(torch.tensor([row]))
    return [torch.cat(found[layer.mlp]) for layer in model.model.layers]


@needs_gptq
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_transformers_loads_it_in_a_fresh_process(made: Path, ids: list[list[int]], name: str) -> None:
    folder = made / f"{name}-gptq"
    python(LOAD, str(folder), str(ids[0]))
    got = torch.load(folder / "logits.pt").log_softmax(-1)
    with torch.inference_mode():
        wanted = plain(made / name)(torch.tensor([ids[0]])).logits[0].log_softmax(-1)
    apart = torch.nn.functional.kl_div(got, wanted, log_target=True, reduction="batchmean")
    assert float(apart) < 1e-2


@needs_gptq
def test_what_is_recorded_and_what_is_not(made: Path) -> None:
    facts = json.loads((made / "llama-gptq/facts.json").read_text())
    assert facts["gptqmodel"] == importlib.metadata.version("gptqmodel")
    assert len(facts["calibration"]) == 24
    assert set(facts["calibration"]) < {f"row {number}" for number in range(40)}
    for name in gptq.CONFIGS:
        assert "/tmp" not in (made / "llama-gptq" / name).read_text()
    assert not list((made / "llama-gptq").glob("quant_log*"))
    assert not list(made.glob(".partial-*"))


def test_rows_are_drawn_by_the_seed_from_those_long_enough() -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"id": str(number), "length": number} for number in range(30)])
    first = [row["id"] for row in gptq.calibration(rows, 5, seed=1)]
    assert first == [row["id"] for row in gptq.calibration(rows, 5, seed=1)]
    assert first != [row["id"] for row in gptq.calibration(rows, 5, seed=2)]
    assert len(gptq.calibration(rows, 128, seed=1)) == 20
    with pytest.raises(StageError, match="no training row has 10 tokens"):
        gptq.calibration(rows.select(range(9)), 5, seed=1)


def test_peft_does_not_load_it(make_recipe: Callable[..., Recipe]) -> None:
    """Where GPTQModel is installed, PEFT would load it in every process that puts adapters beside layers."""
    script = (
        "import sys\nfrom sysml_run.worker import gptq\ngptq.hide()\nimport torch\nfrom peft import LoraConfig\n"
        "from peft import get_peft_model as get\nget(torch.nn.Sequential(torch.nn.Linear(4, 4)), "
        "LoraConfig(target_modules=['0']))\nassert sys.modules['gptqmodel'] is None\ngptq.shown()\n"
        "assert 'gptqmodel' not in sys.modules"
    )
    python(script)
