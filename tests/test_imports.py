"""What each front command loads: start-up is a tested property, so nothing heavy may be pulled in on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysml_run import cli, resources

from . import finished_package

HEAVY = {
    "accelerate", "bitsandbytes", "datasets", "deepspeed", "gguf", "huggingface_hub", "jinja2", "jsonschema",
    "matplotlib", "numpy", "pandas", "peft", "pyarrow", "pydantic", "requests", "rich", "safetensors", "scipy",
    "sklearn", "tokenizers", "torch", "torch_xla", "tqdm", "transformers", "trl",
}  # fmt: skip
CODE = """
import io, json, sys
from contextlib import redirect_stdout
from sysml_run import cli
with redirect_stdout(io.StringIO()):
    code = cli.main(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules}), sorted(sys.modules)]))
"""


def loaded(*arguments: str, cwd: Path) -> tuple[int, set[str], set[str]]:
    """Exit code, top-level modules and all modules after one command in a fresh process."""
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=True
    )
    code, tops, names = json.loads(done.stdout.splitlines()[-1])
    return code, set(tops), set(names)


RECIPES = [str(path) for path in sorted(resources.recipes().glob("*.yaml"))]
COMMANDS: dict[str, tuple[list[str], int]] = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "usage error": (["--frobnicate"], 2),
    "validate": (["validate", *RECIPES], 0),
    "validate as json": (["validate", *RECIPES, "--format", "json"], 0),
    "diff": (["diff", "one.yaml", "--set", "seed=1"], 0),
    "show": (["show", "one.yaml"], 0),
    "explain": (["explain", "optimizer.lr_scheduler"], 0),
    "ready recipes": (["new"], 0),
    "new": (["new", "--from", "quickstart", "my.yaml"], 0),
    "schema": (["schema"], 0),
    "migrate": (["migrate", "axolotl.yml"], 0),
    "plan": (["plan", "one.yaml"], 0),
    "plan as json": (["plan", "one.yaml", "--format", "json"], 0),
    "plan with changes": (["plan", "one.yaml", "--set", "seed=1", "--hardware", "cpu"], 0),
    "plan of a smoke run": (["plan", "one.yaml", "--smoke"], 0),
    "plan that fits": (["plan", "one.yaml", "--fit"], 0),
    "plan on several machines": (["plan", "one.yaml", "--compare", "cpu,tpu:v3-8,gpu:1xl4-24gb"], 0),
    "plan as files": (["plan", "one.yaml", "--write", "files"], 0),
    "verify": (["verify", "package"], 0),
    "report": (["report", "run"], 0),
    "package": (["package", "run", "--out", "out"], 0),
    "run without a recipe": ([], 2),
    "resume without a run": (["one.yaml", "--resume"], 2),
    "run with nothing to do": (["one.yaml", "--only", "merge"], 2),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    finished_package.make(tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "package", tmp_path / "package")
    (tmp_path / "axolotl.yml").write_text("base_model: tiny\nadapter: lora\nlora_r: 8\nsequence_len: 512\n")
    (tmp_path / "one.yaml").write_text("""\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2}
""")
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_heavy_is_loaded(name: str, project: Path) -> None:
    arguments, wanted = COMMANDS[name]
    code, tops, names = loaded(*arguments, cwd=project)
    assert code == wanted
    assert tops & HEAVY == set()
    assert not any(each.startswith("sysml_run.worker") for each in names)


def test_validate_does_without_what_costs_a_fifth_of_it(project: Path) -> None:
    _, _, names = loaded(*COMMANDS["validate"][0], cwd=project)
    assert not names & {"importlib.metadata", "difflib", "hashlib.blake2b", "subprocess"}


@pytest.mark.parametrize("name", ["help", "version", "usage error"])
def test_words_alone_load_not_even_yaml(name: str, project: Path) -> None:
    _, tops, names = loaded(*COMMANDS[name][0], cwd=project)
    assert "yaml" not in tops
    assert "sysml_run.commands" not in names


def test_the_probe_sees_what_is_loaded(project: Path) -> None:
    code = CODE.replace("import io", "import gguf, io")
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], cwd=project, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
    )  # fmt: skip
    assert set(json.loads(done.stdout.splitlines()[-1])[1]) & HEAVY >= {"gguf", "numpy"}


def test_validate_costs_little() -> None:
    """Seconds of processor time: about 0.1 here; the limit leaves room for a slow machine."""
    code = "import os, sys; from sysml_run import cli; cli.main(sys.argv[1:]); print(sum(os.times()[:2]))"
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-c", code, "validate", *RECIPES]
    done = [subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(each.stdout.splitlines()[-1]) for each in done) <= 0.3


def test_a_plan_costs_little(project: Path) -> None:
    """Seconds of processor time for a model of the catalogue: about 0.15 here, of which validate's are 0.1."""
    code = "import os, sys; from sysml_run import cli; cli.main(sys.argv[1:]); print(sum(os.times()[:2]))"
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    model = "model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1"
    command = [sys.executable, "-c", code, "plan", "one.yaml", "--set", model, "--hardware", "gpu:8xh100-80gb"]
    done = [subprocess.run(command, env=env, cwd=project, capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(each.stdout.splitlines()[-1]) for each in done) <= 0.45
