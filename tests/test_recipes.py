"""The ready recipes: valid, planned offline on their hardware and on that which they may move to, and run small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sysml_run import cli, document, resources
from sysml_run.resolve import resolve

RECIPES = {path.stem: path for path in sorted(resources.recipes().glob("*.yaml"))}
MADE = Path(__file__).parents[1] / "examples/make_findings.py"
GATED = "is gated, and no token is set"
NOT_HERE = "there is nothing at"
HARDWARE: Mapping[str, Mapping[str, bool]] = {  # where each may move to, and whether it fits there
    "quickstart": {"gpu:1xl4-24gb": True, "tpu:v5e-8": True},
    "specialist_llama3_full": {"gpu:8xh100-80gb": True, "tpu:v3-8": False, "tpu:v4-32": True},
    "generalist_mixtral_lora": {"gpu:8xh100-80gb": True, "tpu:v2-8": False, "tpu:v3-8": False, "tpu:v4-32": True},
    "mistral_qlora_lion": {"gpu:1xl4-24gb": True, "gpu:1xa100-40gb": True},
    "mistral_distill": {"gpu:1xh200-141gb": True},
    "embedded_gptq": {"gpu:1xa100-40gb": True, "gpu:2xt4-16gb": False, "tpu:v3-8": True},
    "code_analyzer": {"gpu:1xa100-40gb": True, "tpu:v4-8": True},
}
MOVED = [(name, spec, fits) for name, specs in HARDWARE.items() for spec, fits in specs.items()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive in the place of the large one, and a few contracts."""
    folder = tmp_path_factory.mktemp("data")
    made = [sys.executable, str(MADE), "--rows", "120", "--out", str(folder / "massive_datasets.tar.gz")]
    subprocess.run(made, check=True, capture_output=True)
    (folder / "contracts.jsonl").write_bytes((resources.samples() / "contracts.jsonl").read_bytes())
    return folder


@pytest.fixture(autouse=True)
def _no_token_and_no_model_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def planned(name: str, *options: str) -> tuple[int, str, str]:
    """In a process of its own: in this one the tests have hidden libraries that copies are made with."""
    argv = [sys.executable, "-m", "sysml_run.cli", "plan", str(RECIPES[name]), *options, "--offline"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout, done.stderr


def with_data(name: str, data: Path) -> list[str]:
    """Options that name the data, where the recipe's own is not shipped."""
    found = resolve(document.load(RECIPES[name])).recipe.datasets
    files = {number: Path(each.path).name for number, each in enumerate(found)}
    files |= {number: "massive_datasets.tar.gz" for number, file in files.items() if file == "findings.tar.gz"}
    return [word for number, file in files.items() for word in ("--set", f"datasets.{number}.path={data / file}")]


def test_there_are_recipes_and_each_has_its_hardware() -> None:
    assert set(RECIPES) == set(HARDWARE)


@pytest.mark.parametrize("name", RECIPES)
def test_valid_but_for_what_is_not_at_hand(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["validate", str(RECIPES[name]), "--strict", "--format", "json"])
    problems = json.loads(capsys.readouterr().out)["files"][0]["problems"]
    assert {problem["severity"] for problem in problems} <= {"warning"}
    assert all(GATED in problem["message"] or NOT_HERE in problem["message"] for problem in problems), problems
    assert code == (2 if problems else 0)


@pytest.mark.parametrize("name", RECIPES)
def test_comments_stand_in_each(name: str) -> None:
    """What its pipeline left open or contradicted is decided, and the reason is beside the number."""
    lines = RECIPES[name].read_text().splitlines()
    assert sum("#" in line for line in lines) >= (4 if name == "quickstart" else 10)


@pytest.mark.parametrize(("name", "spec", "fits"), MOVED)
def test_one_option_moves_it(name: str, spec: str, fits: bool, data: Path) -> None:
    options = [*with_data(name, data), "--hardware", spec, "--format", "json"]
    if spec.startswith("gpu:8x"):
        options += ["--set", "hardware.zero_stage=3"]  # the section that --hardware swaps had it
    if spec.endswith("t4-16gb"):
        options += ["--set", "hardware.precision=fp16"]
    code, out, err = planned(name, *options)
    assert code == 0, out + err
    found = json.loads(out)
    assert found["hardware"]["accelerator"] == spec.partition(":")[0]
    assert found["memory"]["fits"] is fits
    batch = found["batch"]
    assert batch["micro"] * batch["accumulation"] * batch["world_size"] == batch["effective"]
    asked = resolve(document.load(RECIPES[name])).recipe.training.effective_batch_size
    assert asked in (None, batch["effective"])
    assert {"prepare", "train", "package"} <= {launch["stage"] for launch in found["launch"]}


def test_four_bits_stay_off_a_tpu_and_it_is_said_how(data: Path) -> None:
    moved = ("mistral_qlora_lion", *with_data("mistral_qlora_lion", data), "--hardware", "tpu:v4-8")
    code, _, err = planned(*moved)
    assert code == 2
    assert "quantization.load: nf4" in err
    assert planned(*moved, "--set", "quantization.load=null")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_runs_small(name: str, tmp_path: Path) -> None:
    """With a tiny model, shipped rows where the data is not here, and no connection."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    less = ["--set", "training.max_steps=2", "--set", "training.save_steps=2"]
    if resolve(document.load(RECIPES[name])).recipe.evaluation.every_steps:
        less += ["--set", "evaluation.every_steps=2"]
    command = ["--smoke", str(RECIPES[name]), *less, "--offline"]
    argv = [sys.executable, "-m", "sysml_run.cli", *command]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("*/*")
    assert (run / "package" / "README.md").is_file()
    assert (run / "report.html").is_file()
    kept = resolve(document.load(RECIPES[name])).recipe
    assert len([*run.glob("quantized/*")]) == len(kept.quantization.export)
    assert json.loads((run / "status.json").read_text())["state"] == "done"
