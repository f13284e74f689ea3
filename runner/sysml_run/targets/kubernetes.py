"""A JobSet for Kubernetes: three jobs in order on one volume, with the plan's files in a ConfigMap.

A JobSet says all of it in one file; Kubeflow's TrainJob wants a runtime installed beside it, and becomes a JobSet.
"""

from __future__ import annotations

from typing import Any

from .base import BRING, FILES, FRESH, GRACE, STOPPED, VOLUME, Job, after_training, as_yaml, guard, no_slice, stages

HEADER = """\
# {name} as a JobSet (JobSet 0.8 or newer): kubectl apply -f THIS_FILE
# Yours to set: image (Python 3.11, bash, pip install '{requirement}'), claimName (a ReadWriteMany volume),
# and the Secret sysml-run, whose keys are the variables below that come from it.
{inputs}"""
IMAGE = "registry.example.com/sysml-run:latest"
GUARD = "launch/guard.sh"
PORT = 29500
RESTARTS = 3  # after failures; being stopped does not count
# GKE's names (cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus); chips -> how they are laid out.
SLICES = {
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
FLAT = ("v5e", "v6e")
SQUARES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}
SHAPES = {True: SQUARES, False: CUBES}
TOGETHER = {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
}  # one slice, not parts of two
CACHES = {"HF_HOME": f"{VOLUME}/cache/huggingface", "XDG_CACHE_HOME": f"{VOLUME}/cache"}
RANK = f"""\
export MACHINE_RANK=$JOB_COMPLETION_INDEX MASTER_PORT={PORT}
until [ -n "$stopped" ] || getent hosts "$MASTER_ADDR" >/dev/null; do sleep 1; done
"""


def render(job: Job) -> str:
    """ConfigMap and JobSet. The service through which the machines find each other is made by the JobSet."""
    inputs = [f"# On the volume, before it starts: data{path}\n" for path in job.inputs]
    header = HEADER.format(name=job.name, requirement=job.requirement, inputs="".join(inputs))
    return header + as_yaml(config_map(job), job_set(job))


def config_map(job: Job) -> dict[str, Any]:
    """The run directory's files; a key has no slash."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": job.label},
        "data": {_key(name): text for name, text in _files(job).items()},
    }


def job_set(job: Job) -> dict[str, Any]:
    """Prepare, then train on every machine, then the rest; the whole of it is started again, and skips what is done."""
    where = RANK if job.nodes > 1 else ""
    parts = [
        _replicated(job, "prepare", 1, 0, BRING + FRESH + stages(job, "prepare")),
        _replicated(job, "train", job.nodes, job.devices, where + stages(job, "train"), "prepare"),
        _replicated(job, "finish", 1, job.devices, stages(job, *after_training(job)), "train"),
    ]
    stopped = {
        "name": "stopped",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": job.label},
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "coordinator": {"replicatedJob": "train", "jobIndex": 0, "podIndex": 0},
            "failurePolicy": {"maxRestarts": RESTARTS, "rules": [stopped]},
            "replicatedJobs": parts,
        },
    }


def _replicated(job: Job, name: str, pods: int, devices: int, lines: str, after: str | None = None) -> dict[str, Any]:
    """One job; stopped or evicted pods end it at once, and the JobSet knows them by the reason."""
    rules: list[dict[str, Any]] = [
        {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": "In", "values": [STOPPED]}},
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    template = {
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": rules},
            "template": {"spec": _pod(job, name, devices, lines)},
        }
    }
    waits = {"dependsOn": [{"name": after, "status": "Complete"}]} if after else {}
    if job.slice is not None and name == "train":
        template = {"metadata": {"annotations": TOGETHER}, **template}
    return {"name": name, "replicas": 1, **waits, "template": template}


def _pod(job: Job, name: str, devices: int, lines: str) -> dict[str, Any]:
    mounts = [
        {"name": "volume", "mountPath": VOLUME},
        *({"name": "volume", "mountPath": path, "subPath": f"data{path}", "readOnly": True} for path in job.inputs),
        {"name": "files", "mountPath": FILES, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    container = {
        "name": name,
        "image": IMAGE,
        "workingDir": VOLUME,
        "command": ["bash", "-c", f". {FILES}/{GUARD}\n{lines}"],
        "env": _env(job),
        "resources": {"limits": _limits(job, name, devices)} if _limits(job, name, devices) else {},
        "volumeMounts": mounts,
    }
    items = [{"key": _key(file), "path": file} for file in _files(job)]
    return {
        "restartPolicy": "Never",
        **_slice_nodes(job, name),
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "volume", "persistentVolumeClaim": {"claimName": "sysml-run"}},
            {"name": "files", "configMap": {"name": job.label, "items": items}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _limits(job: Job, name: str, devices: int) -> dict[str, int]:
    """Cards, or in training the chips of one host of the slice."""
    if job.slice is not None and name == "train":
        return {"google.com/tpu": job.slice.chips // job.nodes}
    return {"nvidia.com/gpu": devices} if devices else {}


def _slice_nodes(job: Job, name: str) -> dict[str, Any]:
    """Where GKE has hosts of such a slice. Raises UsageError for one that it does not have."""
    if job.slice is None:
        return {}
    kind, shape = SLICES.get(job.slice.generation), SHAPES[job.slice.generation in FLAT].get(job.slice.chips)
    if kind is None or shape is None:
        raise no_slice(job, "Kubernetes")
    if name != "train":
        return {}
    names = ("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology")
    return {"nodeSelector": dict(zip(names, (kind, shape), strict=True))}


def _env(job: Job) -> list[dict[str, Any]]:
    """Caches on the volume, secrets by reference, and where the first training machine is."""
    coordinator = {"fieldRef": {"fieldPath": "metadata.annotations['jobset.sigs.k8s.io/coordinator']"}}
    return [
        *({"name": name, "value": value} for name, value in CACHES.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": "sysml-run", "key": name, "optional": True}}}
            for name in job.secrets
        ),
        *([{"name": "MASTER_ADDR", "valueFrom": coordinator}] if job.nodes > 1 else []),
    ]


def _files(job: Job) -> dict[str, str]:
    return {**job.files, GUARD: guard(job)}


def _key(name: str) -> str:
    return name.replace("/", "_")
