"""A JobSet for Kubernetes: three jobs in order on one volume, with the plan's files in a ConfigMap.

A JobSet says all of it in one file; Kubeflow's TrainJob wants a runtime installed beside it, and becomes a JobSet.
"""

from __future__ import annotations

from typing import Any

from .base import BRING, FILES, FRESH, GRACE, STOPPED, VOLUME, Job, after_training, as_yaml, guard, stages

HEADER = """\
# {name} as a JobSet (JobSet 0.8 or newer): kubectl apply -f THIS_FILE
# Yours to set: image (Python 3.11, bash, pip install '{requirement}'), claimName (a ReadWriteMany volume),
# and the Secret sysml-run, whose keys are the variables below that come from it.
{inputs}"""
IMAGE = "registry.example.com/sysml-run:latest"
GUARD = "launch/guard.sh"
PORT = 29500
RESTARTS = 3  # after failures; being stopped does not count
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
        "resources": {"limits": {"nvidia.com/gpu": devices}} if devices else {},
        "volumeMounts": mounts,
    }
    items = [{"key": _key(file), "path": file} for file in _files(job)]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "volume", "persistentVolumeClaim": {"claimName": "sysml-run"}},
            {"name": "files", "configMap": {"name": job.label, "items": items}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


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
