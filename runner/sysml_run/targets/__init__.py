"""Jobs for clusters around the commands of a plan: one module for each kind, and the table that names them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sysml_run import __version__, slices
from sysml_run.errors import UsageError
from sysml_run.machine import Machine
from sysml_run.modelref import models
from sysml_run.plan import Plan, files
from sysml_run.recipe import HardwareGpu, HardwareTpu, Recipe

from . import gcloud, kubernetes, skypilot, slurm
from .base import VOLUME, Job

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # would end a comment of a job, and begin a command
WILD = re.compile(r"[*?\[]")
ELSEWHERE = ("hub:", "package:", "tiny:")


@dataclass(frozen=True)
class Target:
    """`file` is named in the run directory; `shared` where the job sees this machine's folders and Python."""

    file: str
    submit: str
    render: Callable[[Job], str]
    shared: bool

    def run(self, folder: Path, name: str) -> str:
        """The run directory as the job sees it."""
        return str(folder) if self.shared else f"{VOLUME}/runs/{name}/{folder.name}"

    def machine(self, here: Machine) -> Machine:
        """The machine the commands are written for; one that is not shared has the Python of its PATH."""
        return here if self.shared else replace(here, python="python", installed=(), virtual=0, elsewhere=True)


TARGETS: Mapping[str, Target] = {
    "gcloud": Target("launch/gcloud.sh", "bash", gcloud.render, shared=False),
    "slurm": Target("launch/slurm.sbatch", "sbatch", slurm.render, shared=True),
    "kubernetes": Target("launch/kubernetes.yaml", "kubectl apply -f", kubernetes.render, shared=False),
    "skypilot": Target("launch/skypilot.yaml", "sky jobs launch", skypilot.render, shared=False),
}


def job(plan: Plan, shown: Mapping[str, Any], text: str, run: str, folder: Path) -> Job:
    """The job of a plan made for the run directory `run`, which is written to `folder` here.

    `shown` is the plan as plain values and `text` the recipe as written.
    """
    hardware = plan.recipe.hardware
    gpu = hardware if isinstance(hardware, HardwareGpu) else None
    tpu = slices.find(hardware.topology) if isinstance(hardware, HardwareTpu) else None
    extras = "tpu" if tpu else "train,gpu" if gpu else "train"
    return Job(
        name=plan.recipe.name,
        run=run,
        folder=str(folder),
        nodes=gpu.nodes if gpu else tpu.hosts if tpu else 1,
        devices=gpu.devices if gpu else 0,
        card=gpu.type if gpu else None,
        launches=plan.launches,
        files=files(plan, shown, text),
        inputs=inputs(plan.recipe),
        secrets=secrets(plan.recipe),
        requirement=f"sysml-run[{extras}]=={__version__}",
        slice=tpu,
    )


def inputs(recipe: Recipe) -> tuple[str, ...]:
    """Files and folders of this machine that the recipe reads; of a pattern, the folder above its first wildcard.

    Raises UsageError for one that no line of a job can hold.
    """
    paths = [*(named.name for named in models(recipe)), *(dataset.path for dataset in recipe.datasets)]
    for path in paths:
        if CONTROL.search(path):
            raise UsageError(f"a job cannot name {path!r}, which has a line break or the like", "rename it")
    return tuple(dict.fromkeys(_solid(path) for path in paths if path.startswith("/")))


def secrets(recipe: Recipe) -> tuple[str, ...]:
    """Environment variables that hold what this recipe may have to show to others."""
    hub = any(not named.name.startswith(("/", *ELSEWHERE)) for named in models(recipe))
    hub = hub or any(dataset.path.startswith("hub:") for dataset in recipe.datasets)
    return (*(["HF_TOKEN"] if hub else []), *(["WANDB_API_KEY"] if "wandb" in recipe.tracking else []))


def _solid(path: str) -> str:
    wild = WILD.search(path)
    return path[: wild.start()].rpartition("/")[0] if wild else path
