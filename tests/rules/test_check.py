"""Severity, order, and what is said once; what is not built, not here or not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sysml_run import document, overrides, rules, smoke
from sysml_run.resolve import resolve
from sysml_run.unbuilt import UNBUILT

from .conftest import MINIMAL

ASKED = {
    "hardware.accelerator": ["hardware={accelerator: tpu, topology: v5e-8}"],
    "hardware.devices": ["hardware={accelerator: cpu, devices: 2}"],
    "hardware.zero_stage": ["hardware={accelerator: cpu, zero_stage: 0}"],
    "hardware.offload.optimizer": ["hardware={accelerator: cpu, zero_stage: 2, offload: {optimizer: cpu}}"],
    "hardware.offload.parameters": ["hardware={accelerator: cpu, zero_stage: 3, offload: {parameters: nvme}}"],
    "quantization.export.*.method": ["quantization.export=[{method: gguf}]"],
    "search": ["search.space={seed: [1, 2]}"],
    "prompt.template": ["prompt.template=alpaca"],
    "prompt.packing": ["prompt.packing=true"],
    "prompt.padding": ["prompt.padding=bucketed"],
    "datasets.*.type": ["datasets.0.type=preference"],
    "datasets.*.path": ["datasets.0.path=hub:owner/name"],
    "datasets.*.weight": ["datasets.0.weight=0.5"],
    "datasets.*.route": ["datasets.0.route={when: title}"],
    "datasets.*.redact": ["datasets.0.redact=[{pattern: x}]"],
    "datasets.*.use_as": [
        "datasets=[{path: rows.jsonl, type: messages, use_as: test}, {path: rows.jsonl, type: messages}]"
    ],
    "split.dedupe": ["split.dedupe=exact"],
    "split.balance": ["split.balance={by: severity}"],
}


def found(tmp_path: Path, *assignments: str, running: bool = False, source: str | None = None):
    """All problems of the plain recipe after --set ASSIGNMENTS; `source` stands for the command line's."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    read = overrides.apply(document.parse(MINIMAL, str(tmp_path / "r.yaml")), assignments)
    if source is not None:
        read = overrides.set_value(read, ("training",), {"max_steps": 4}, source)
    return rules.check(resolve(read).recipe, read, running=running)


@pytest.fixture(autouse=True)
def alone(hub: Path) -> None:
    """No account on the hub."""


def test_every_row_of_the_table_is_asked_for() -> None:
    assert {row.pointer for row in UNBUILT} <= set(ASKED)


@pytest.mark.parametrize("pointer", [row.pointer for row in UNBUILT])
def test_what_is_not_built_stops_a_run_and_is_left_out_of_a_check(pointer: str, tmp_path: Path) -> None:
    at = pointer.replace("*", "0")
    unbuilt = "is not built in this version"
    assert not any(one.message.endswith(unbuilt) for one in found(tmp_path, *ASKED[pointer]))
    problems = found(tmp_path, *ASKED[pointer], running=True)
    (problem,) = [one for one in problems if one.pointer == at and one.message.endswith(unbuilt)]
    assert problem.severity == "error"
    assert problem.hint


def test_a_check_says_nothing_of_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    asked = ["evaluation={generate: {}, metrics: [rouge_l]}", "quantization.export=[{method: gptq, group_size: 32}]"]
    assert found(tmp_path, *asked) == []
    assert {one.severity for one in found(tmp_path, *asked, running=True)} == {"error"}


def test_models_that_are_not_here(check, tmp_path: Path) -> None:
    for name in ("package:no_such_package/model.gguf", f"{tmp_path}/nowhere", str(tmp_path)):
        (warning,) = check(f"model.base_model={name}")
        (error,) = check(f"model.base_model={name}", running=True)
        assert (warning.pointer, warning.severity, error.severity) == ("model.base_model", "warning", "error")
    (problem,) = check("model.base_model=https://huggingface.co/owner/name/tree/main")
    assert problem.hint == "a model of the hub is written owner/name"


def test_data_that_is_not_here(check, tmp_path: Path) -> None:
    (warning,) = check(f"datasets.0.path={tmp_path}/*.csv")
    (error,) = check(f"datasets.0.path={tmp_path}/*.csv", running=True)
    assert (warning.severity, error.severity) == ("warning", "error")
    assert error.message == f"there is nothing at {tmp_path}/*.csv"
    assert check(f"datasets.0.path={tmp_path}/*.jsonl", running=True) == []
    assert check(f"datasets.0.path={tmp_path}", running=True) == []
    for path, hub in {"owner/name-2.5": True, "owner/rows.jsonl": False, "name": False}.items():
        (problem,) = check(f"datasets.0.path={path}")
        assert (f"hub:{path}" in (problem.hint or "")) == hub


TOOLS = {
    "quantization.export=[{method: gptq}]": ("gptqmodel and optimum", "pip install 'sysml-run[gptq]'"),
    "quantization.export=[{method: gguf, type: Q8_0}]": ("gguf", "pip install 'sysml-run[train]'"),
    "quantization.export=[{method: gguf, type: Q4_K_M}]": (
        "gguf and libgguf",
        "pip install 'sysml-run[train]'",
    ),
    "evaluation={generate: {}, metrics: [json_valid, rouge_l]}": ("rouge_score", "pip install 'sysml-run[metrics]'"),
}


@pytest.mark.parametrize("assignment", TOOLS)
def test_libraries_that_are_not_installed(assignment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no folder to import from, nothing is installed."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    read = overrides.apply(document.parse(MINIMAL, str(tmp_path / "r.yaml")), [assignment])
    recipe = resolve(read).recipe
    for name in ("gguf", "libgguf", "gptqmodel", "optimum", "rouge_score"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])
    (finding,) = [*rules.extras.export_tools(recipe), *rules.extras.metric_tools(recipe)]
    library, hint = TOOLS[assignment]
    assert finding.message.endswith(f"takes {library}, not installed here")
    assert (finding.hint, finding.later, finding.severity) == (hint, True, "error")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said of a recipe that is looked at too: whoever writes one line of it should know of the other."""
    assert found(tmp_path, f"tracking=[{name}]", running=True) == []
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])
    (warning,) = found(tmp_path, f"tracking=[{name}]")
    (error,) = found(tmp_path, f"tracking=[{name}]", running=True)
    assert (warning.severity, error.severity) == ("warning", "error")
    assert warning.message == error.message == f"tracking with {name} takes {name}, not installed here"
    assert warning.hint == f"pip install 'sysml-run[{name}]'"
    assert (warning.pointer, warning.line) == ("tracking.0", None)


def test_libraries_that_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gguf", "libgguf", "gptqmodel", "optimum", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    read = overrides.apply(
        document.parse(MINIMAL, str(tmp_path / "r.yaml")),
        ["quantization.export=[{method: gguf}, {method: gptq}]", "tracking=[wandb]"],
    )
    recipe = resolve(read).recipe
    assert [*rules.extras.export_tools(recipe), *rules.extras.trackers(recipe)] == []


def test_of_one_place_it_is_said_once_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = [rules.Finding("tracking.0", text, later=True) for text in ("first", "second")]
    monkeypatch.setattr(rules, "RULES", (lambda recipe: iter(later),))
    assert [problem.message for problem in found(tmp_path)] == ["first"]
    wrong = rules.Finding("tracking.0", "wrong")
    monkeypatch.setattr(rules, "RULES", (lambda recipe: iter(later), lambda recipe: iter([wrong])))
    assert [problem.message for problem in found(tmp_path)] == ["wrong"]


def test_problems_stand_where_something_is_written(tmp_path: Path) -> None:
    """A default is shown at the key that makes it wrong, an unknown key at itself."""
    written = MINIMAL.replace("type: messages", "type: messages\n    max_rows: 1")
    read = document.parse(f"{written}search: {{space: {{seeds: [1]}}}}\n", str(tmp_path / "r.yaml"))
    problems = rules.check(resolve(read).recipe, read, running=True)
    shown = {problem.pointer: (problem.line, problem.column) for problem in problems}
    assert shown["split.validation"] == (7, 15)
    assert shown["search.space.seeds"] == (10, 18)
    read = overrides.apply(read, ["split.validation=1"])
    (problem,) = [one for one in rules.check(resolve(read).recipe, read, running=True) if one.pointer[:5] == "split"]
    assert problem.source == "--set split.validation=1"


def test_nothing_is_advised_about_what_smoke_swapped(tmp_path: Path) -> None:
    early = "evaluation={every_steps: 2, best: {}, early_stopping: {}}"
    assert [problem.pointer for problem in found(tmp_path, early, source="--set x")] == ["training.max_steps"]
    assert found(tmp_path, early, source=smoke.SOURCE) == []
    assert rules.SWAPPED == smoke.SOURCE
