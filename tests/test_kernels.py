"""Kernels for cards are chosen by what is installed, and the reason is in the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sysml_run import document, kernels, machine, needs, overrides, plan
from sysml_run.machine import Machine
from sysml_run.plan import Plan
from sysml_run.resolve import resolve

RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
training: {max_steps: 1}
hardware: {accelerator: gpu, type: l4-24gb}
"""
BARE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")


def made(installed: tuple[str, ...], *changes: str) -> Plan:
    read = overrides.apply(document.parse(RECIPE, "r.yaml"), changes)
    return plan.make(resolve(read), replace(BARE, installed=installed), "/runs/1")


ALL = machine.FASTER


@pytest.mark.parametrize(
    ("installed", "changes", "chosen", "words"),
    [
        ((), (), "sdpa", "flash_attn is not installed"),
        (("flash_attn",), (), "flash_attention_2", "flash_attn is installed"),
        (("kernels",), (), "sdpa", "flash_attn is not installed"),
        (ALL, ("hardware.precision=fp32",), "sdpa", "computes in 16 bits"),
        (ALL, ("model.dtype=float32", "hardware.precision=bf16"), "sdpa", "model.dtype is float32"),
        (ALL, ("hardware.type=t4-16gb", "hardware.precision=fp16"), "sdpa", "t4-16gb is older"),
        (ALL, ("prompt.packing=true", "hardware.zero_stage=null"), "flash_attention_2", "flash_attn is installed"),
    ],
)
def test_attention(installed: tuple[str, ...], changes: tuple[str, ...], chosen: str, words: str) -> None:
    settled = made(installed, *changes)
    assert settled.recipe.model.attn_implementation == chosen
    assert words in settled.sources["model.attn_implementation"]


@pytest.mark.parametrize(
    ("installed", "changes", "chosen", "words"),
    [
        ((), (), "torch", "pip install 'sysml-run[liger]'"),
        (ALL, (), "liger", "is installed and fits"),
        (ALL, ("model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1",), "liger", "fits the model"),
        (ALL, ("model.base_model=owner/model",), "torch", "the model is not at hand"),
        (ALL, ("model.base_model=/nowhere",), "torch", "the model is not at hand"),
    ],
)
def test_liger(installed: tuple[str, ...], changes: tuple[str, ...], chosen: str, words: str) -> None:
    settled = made(installed, *changes)
    assert settled.recipe.model.kernels == chosen
    assert words in settled.sources["model.kernels"]


def test_what_is_written_stays_and_a_processor_has_no_choice() -> None:
    settled = made(ALL, "model.kernels=torch", "model.attn_implementation=eager")
    assert (settled.recipe.model.kernels, settled.recipe.model.attn_implementation) == ("torch", "eager")
    assert made(ALL, "hardware={accelerator: cpu}").recipe.model.kernels == "auto"


def test_here_is_what_is_installed_here(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "flash_attn").mkdir()  # a mere folder, which Python finds too
    for name in ("kernels", "liger_kernel"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('it is not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert machine.look().installed == ("liger_kernel",)


def test_every_model_that_liger_is_said_to_fit_is_known_to_us() -> None:
    from sysml_run.architecture import DEFAULTS

    assert set(kernels.LIGER) - {"qwen3"} == set(DEFAULTS)


def test_what_is_written_has_to_be_installed() -> None:
    def wanted(*changes: str) -> set[str]:
        read = overrides.apply(document.parse(RECIPE, "r.yaml"), changes)
        return {"liger_kernel", "flash_attn"} & set(needs.libraries(resolve(read).recipe))

    assert wanted() == set()
    assert wanted("model.kernels=liger") == {"liger_kernel"}
    assert wanted("model.attn_implementation=flash_attention_2") == {"flash_attn"}
    assert needs.command("liger_kernel") == "pip install 'sysml-run[liger]'"
