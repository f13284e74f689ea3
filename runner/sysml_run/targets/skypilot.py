"""A task for SkyPilot's managed jobs: machines of any cloud, the run directory in a bucket that outlives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sysml_run.errors import UsageError
from sysml_run.wording import closest

from .base import BRING, FILES, FRESH, STOPPED, VOLUME, Job, after_training, as_yaml, guard, no_slice, stages

HEADER = """\
# {name} as a managed job: sky jobs launch {secrets}THIS_FILE
# The folder of its files is written by: sysml-run plan RECIPE --target skypilot --write DIR
# Yours to set: the bucket's name, which must be unique in the whole cloud. On spot machines: add --use-spot.
"""
PORT = 29500
RESTARTS = 3  # after failures; being stopped does not count
CARDS: Mapping[str, str] = {  # hardware.type -> SkyPilot's name in its catalogue
    "a10-24gb": "A10",
    "a10g-24gb": "A10G",
    "a100-40gb": "A100",
    "a100-80gb": "A100-80GB",
    "b200-180gb": "B200",
    "h100-80gb": "H100",
    "h200-141gb": "H200",
    "l4-24gb": "L4",
    "l40s-48gb": "L40S",
    "rtx4090-24gb": "RTX4090",
    "t4-16gb": "T4",
    "v100-16gb": "V100",
    "v100-32gb": "V100-32GB",
}
RUNTIMES: Mapping[str, str] = {  # the system image of a TPU VM (cloud.google.com/tpu/docs/runtimes)
    **dict.fromkeys(("v2", "v3", "v4"), "tpu-ubuntu2204-base"),
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
# A TPU VM's own Python is older than 3.11.
SETUP = "pip install uv && uv venv --python 3.11 ~/sysml-run && uv pip install --python ~/sysml-run/bin/python '{}'"
PATH = "export PATH=~/sysml-run/bin:$PATH\n"
# Prepared rows lie on each machine's own disk, so each machine prepares, also a fresh one that takes over.
SCRIPT = """\
{guard}
{where}cd {volume} || exit
{bring}{fresh}rm -f "$RUN/records/prepare.json"
{before}[ "$SKYPILOT_NODE_RANK" -eq 0 ] || exit 0
{rest}"""
WHERE = f"""\
export MACHINE_RANK=$SKYPILOT_NODE_RANK MASTER_PORT={PORT} MASTER_ADDR
MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | sed -n 1p)
"""


def render(job: Job) -> str:
    """The task. Raises UsageError for a card that has no name in SkyPilot's catalogue."""
    header = HEADER.format(name=job.name, secrets="".join(f"--secret {name} " for name in job.secrets))
    return header + as_yaml(task(job))


def task(job: Job) -> dict[str, Any]:
    """The task as plain values."""
    recovery = {"max_restarts_on_errors": RESTARTS, "recover_on_exit_codes": [STOPPED]}
    card: dict[str, Any] = {"accelerators": f"{_card(job)}:{job.devices}"} if job.devices else {}
    if job.slice is not None:
        card = _slice(job)
    secrets = {"secrets": dict.fromkeys(job.secrets)} if job.secrets else {}
    return {
        "name": job.label,
        "num_nodes": 1 if job.slice else job.nodes,  # a slice is one node, and each of its hosts runs the script
        "resources": {**card, "job_recovery": recovery},
        **secrets,
        "file_mounts": {
            VOLUME: {"name": f"sysml-run-{job.label}", "mode": "MOUNT_CACHED"},
            FILES: job.folder,
            **{path: path for path in job.inputs},
        },
        "setup": (SETUP if job.slice else "pip install '{}'").format(job.requirement),
        "run": _script(job),
    }


def _script(job: Job) -> str:
    return SCRIPT.format(
        guard=guard(job) + (PATH if job.slice else ""),
        where=WHERE if job.nodes > 1 else "",
        volume=VOLUME,
        bring=BRING,
        fresh=FRESH,
        before=stages(job, "prepare", "train"),
        rest=stages(job, *after_training(job)),
    )


def _slice(job: Job) -> dict[str, Any]:
    """Raises UsageError for a slice that is not in SkyPilot's catalogue."""
    assert job.slice is not None
    if job.slice.generation not in RUNTIMES:
        raise no_slice(job, "SkyPilot's catalogue")
    name, runtime = job.slice.name.replace("v5e", "v5litepod"), RUNTIMES[job.slice.generation]
    return {"accelerators": f"tpu-{name}", "accelerator_args": {"runtime_version": runtime}}


def _card(job: Job) -> str:
    if job.card is None:
        raise UsageError("SkyPilot looks for machines by their card, and hardware.type is not written", _known())
    if job.card not in CARDS:
        near = closest(job.card, CARDS)
        hint = f"did you mean {near}?" if near else _known()
        raise UsageError(f"hardware.type {job.card!r} has no known name in SkyPilot's catalogue", hint)
    return CARDS[job.card]


def _known() -> str:
    return f"write hardware.type as one of {', '.join(CARDS)}"
