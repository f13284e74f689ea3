"""The notebooks for Colab and Kaggle: well formed, Python compiles, recipes are valid, commands parse.

The one for GPUs is run whole as well, on this machine's processor and with a tiny model.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sysml_run import cli, options

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS: Mapping[str, Any] = {path.stem: json.loads(path.read_text()) for path in EXAMPLES.glob("*.ipynb")}
OURS = re.compile(r"^!(?:tpu-env/bin/)?(sysml-run .*)$", re.MULTILINE)
ON_CPU = {
    "model: {base_model: HuggingFaceTB/SmolLM2-135M-Instruct}": "model: {base_model: tiny:llama, dtype: float32}",
    "hardware: {accelerator: gpu, type: t4-16gb, precision: fp16}": "hardware: {accelerator: cpu, threads: 1}",
    "num_epochs: 2": "max_steps: 2",
}
RECIPES = {
    "tpu": [("topology: v5e-1", f"topology: {name}") for name in ("v5e-1", "v5e-8", "v3-8")],
    "gpu": [
        ("type: t4-16gb, precision: fp16", changed)
        for changed in ("type: t4-16gb, precision: fp16", "type: l4-24gb", "type: a100-40gb, precision: bf16")
    ],
}


def code(name: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_for_each_accelerator() -> None:
    assert set(NOTEBOOKS) == set(RECIPES)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_a_notebook_of_format_4_5(name: str) -> None:
    """jupyter.org: every cell has an id, and code cells have outputs, here none."""
    read = NOTEBOOKS[name]
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    for cell in read["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        assert set(cell) == wanted


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_python_compiles(name: str) -> None:
    for text in code(name):
        if not text.startswith("%%"):
            ast.parse(python(text))


def python(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line[:1] not in "!%")


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, each in RECIPES.items() for change in each])
def test_the_recipe_is_valid_on_each_device(
    name: str, change: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rows that its own cell writes."""
    (recipe,) = [text for text in code(name) if text.startswith("%%writefile ")]
    (rows,) = [text for text in code(name) if "rows.jsonl" in text and not text.startswith("%%")]
    monkeypatch.chdir(tmp_path)
    exec(rows, {})
    assert len(Path("rows.jsonl").read_text().splitlines()) == 512
    assert change[0] in recipe
    Path("recipe.yaml").write_text(recipe.partition("\n")[2].replace(*change))
    assert cli.main(["validate", "recipe.yaml", "--strict"]) == 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_commands_parse(name: str) -> None:
    commands = [line for text in code(name) for line in OURS.findall(text)]
    assert len(commands) >= 3
    for line in commands:
        words = shlex.split(line.replace("$TOPOLOGY", "v5e-1"))[1:]
        command = words[0] if words[0] in options.COMMANDS else "run"
        options.parser(command).parse_args(words[1:] if command == words[0] else words)


@pytest.mark.slow
def test_the_one_for_gpus_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line as a notebook takes it, but for the one that installs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, Any] = {}
    printed = "".join(run(text, names) for text in code("gpu"))
    assert "validation loss" in printed
    assert "\nstate  done\n" in printed
    assert (names["RUN"] / "package" / "model.safetensors").is_file()


def run(text: str, names: dict[str, Any]) -> str:
    """What the commands of a cell print."""
    if text.startswith("%%writefile "):
        first, _, rest = text.partition("\n")
        for before, after in ON_CPU.items():
            assert before in rest
            rest = rest.replace(before, after)
        Path(first.split()[1]).write_text(rest)
        return ""
    printed, python = "", ""
    for line in [*text.splitlines(), "!"]:
        if line.startswith("!"):
            exec(python, names)
            printed, python = printed + shell(line[1:], names), ""
        else:
            python += f"{line}\n"
    return printed


def shell(line: str, names: Mapping[str, Any]) -> str:
    if not line.startswith("sysml-run"):
        return ""
    command = re.sub(r"\$([A-Z]+)", lambda found: str(names[found[1]]), line)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
