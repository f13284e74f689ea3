"""The notebook for Colab and Kaggle: well formed, its Python compiles, its recipe is valid, its commands parse."""

from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from sysml_run import cli, options

NOTEBOOK = Path(__file__).parents[2] / "examples/tpu.ipynb"
READ: dict[str, Any] = json.loads(NOTEBOOK.read_text())
CODE = ["".join(cell["source"]) for cell in READ["cells"] if cell["cell_type"] == "code"]
COMMANDS = [line for text in CODE for line in text.splitlines() if line.startswith("!tpu-env/bin/sysml-run")]


def test_it_is_a_notebook_of_format_4_5() -> None:
    """jupyter.org: every cell has an id, and code cells have outputs, here none."""
    assert (READ["nbformat"], READ["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in READ["cells"]}) == len(READ["cells"])
    for cell in READ["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        assert set(cell) == wanted


def test_the_python_compiles() -> None:
    for text in CODE:
        if not text.startswith("%%"):
            ast.parse("\n".join(line for line in text.splitlines() if line[:1] not in "!%"))


@pytest.mark.parametrize("topology", ["v5e-1", "v5e-8", "v3-8"])
def test_the_recipe_is_valid_on_each_slice(topology: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rows that its own cell writes."""
    (recipe,) = [text for text in CODE if text.startswith("%%writefile tpu.yaml\n")]
    (rows,) = [text for text in CODE if "rows.jsonl" in text and not text.startswith("%%")]
    monkeypatch.chdir(tmp_path)
    exec(rows, {})
    assert len(Path("rows.jsonl").read_text().splitlines()) == 512
    written = recipe.partition("\n")[2].replace("topology: v5e-1", f"topology: {topology}")
    Path("tpu.yaml").write_text(written)
    assert cli.main(["validate", "tpu.yaml", "--strict"]) == 0


def test_the_commands_parse() -> None:
    assert len(COMMANDS) >= 3
    for line in COMMANDS:
        words = shlex.split(line.replace("$TOPOLOGY", "v5e-1"))[1:]
        command = words[0] if words[0] in options.COMMANDS else "run"
        options.parser(command).parse_args(words[1:] if command == words[0] else words)
