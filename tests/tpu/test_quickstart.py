"""The shipped recipe on a TPU's program: a real model for a few steps, through every stage to the package."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from .conftest import ROOT, Run

SHORT = (
    "training.num_epochs=null",
    "training.max_steps=2",
    "training.logging_steps=1",
    "evaluation.generate.rows=2",
    "datasets.0.max_rows=64",
)
SMALL = ("training.micro_batch_size=1", "prompt.sequence_len=128", "hardware.precision=fp32")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe in a folder of its own, with its archive."""
    folder = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "examples/data").mkdir(parents=True)
    make = [sys.executable, str(ROOT / "examples/make_findings.py"), "--rows", "120"]
    subprocess.run([*make, "--out", "examples/data/findings.tar.gz"], cwd=folder, check=True, capture_output=True)
    return folder / "recipes/quickstart.yaml"


def words(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.slow
def test_quickstart_on_virtual_devices(recipe: Path, sysml_run: Run, topology: str | None) -> None:
    if topology is not None:
        pytest.skip("on a TPU the whole recipe runs")
    runs = recipe.parents[1] / "runs"
    small = (*SHORT, *SMALL, "optimizer.warmup_ratio=0")
    done = sysml_run("--hardware", "tpu:v3-8", str(recipe), *words(*small), "--runs", str(runs), devices=8)
    assert "XLA on the processor, 8 virtual devices; not a TPU" in done.stdout
    (run,) = (runs / "quickstart").iterdir()
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2
    assert losses[-1] < losses[0]
    assert (run / "package/model.safetensors").is_file()


@pytest.mark.tpu_hardware
def test_quickstart_on_this_tpu(recipe: Path, env: Mapping[str, str], topology: str | None) -> None:
    """Leaves `tpu-record.json`: what to send, with versions, devices, compilations, speed and losses."""
    if topology is None:
        pytest.skip("--on-tpu TOPOLOGY, such as --on-tpu v5e-8, runs this on a TPU")
    runs = recipe.parents[1] / "runs"
    command = [sys.executable, "-m", "sysml_run.cli", "--hardware", f"tpu:{topology}", str(recipe), "--runs", str(runs)]
    subprocess.run(command, env=env, check=True)
    (run,) = (runs / "quickstart").iterdir()
    found = json.loads((run / "records/train.json").read_text())
    assert found["xla"]["ran_on"].startswith("TPU")
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluation = json.loads((run / "evaluation.json").read_text())
    kept = {"topology": topology, "record": found, "metrics": metrics, "evaluation": evaluation}
    Path("tpu-record.json").write_text(json.dumps(kept, indent=2) + "\n")
