"""Jobs for TPU slices: golden files, and the scripts run with stand-ins for gcloud and the stages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document, overrides, plan, planview
from sysml_run.errors import UsageError
from sysml_run.machine import Machine
from sysml_run.resolve import resolve
from sysml_run.targets import TARGETS, job, kubernetes
from sysml_run.targets.base import STOPPED, Job

GOLDEN = Path(__file__).parent / "targets_tpu"
HERE = Machine(32, 256 * 2**30, "New", True, "this processor has avx512_bf16", "/venv/bin/python", virtual=8)
SLICES = ("v3-8", "v4-32", "v5e-64")
RECIPE = """\
version: 1
name: one
model: {base_model: owner/model}
datasets: [{path: /data/rows.jsonl, type: messages}]
lora: {}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 40, save_steps: 20}
"""


def made(target: str, hardware: str, folder: Path = Path("/here/runs/1"), run: str | None = None) -> Job:
    resolved = resolve(overrides.swap_hardware(document.parse(RECIPE, "one.yaml"), hardware))
    chosen = TARGETS[target]
    run = run or chosen.run(folder, resolved.recipe.name)
    laid = plan.make(resolved, chosen.machine(HERE), run)
    return job(laid, planview.values(laid, "one.yaml"), RECIPE, run, folder)


def rendered(target: str, topology: str) -> str:
    return TARGETS[target].render(made(target, f"tpu:{topology}"))


WRITTEN = [("gcloud", topology) for topology in SLICES]
WRITTEN += [("skypilot", topology) for topology in SLICES] + [("kubernetes", topology) for topology in SLICES[1:]]


@pytest.mark.parametrize(("target", "topology"), WRITTEN)
def test_golden(target: str, topology: str, golden: Callable[[Path, str], None]) -> None:
    text = rendered(target, topology)
    golden(GOLDEN / f"{target}_{topology}{Path(TARGETS[target].file).suffix}", text.rpartition("\n---\n")[2])


def test_no_golden_job_is_left_over() -> None:
    wanted = {f"{target}_{topology}{Path(TARGETS[target].file).suffix}" for target, topology in WRITTEN}
    assert {file.name for file in GOLDEN.iterdir()} == wanted


@pytest.mark.parametrize(
    ("target", "hardware", "words"),
    [
        ("slurm", "tpu:v3-8", "none that Slurm has"),
        ("kubernetes", "tpu:v3-8", "none that Kubernetes has"),
        ("kubernetes", "tpu:v4-24", "none that Kubernetes has"),
        ("skypilot", "tpu:tpu7x-8", "none that SkyPilot's catalogue has"),
        ("gcloud", "gpu:1xh100-80gb", "for other hardware"),
        ("gcloud", "cpu", "for other hardware"),
    ],
)
def test_what_a_cluster_does_not_have(target: str, hardware: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TARGETS[target].render(made(target, hardware))


def pods(topology: str) -> dict[str, dict[str, Any]]:
    parts = kubernetes.job_set(made("kubernetes", f"tpu:{topology}"))["spec"]["replicatedJobs"]
    return {part["name"]: part for part in parts}


@pytest.mark.parametrize(("topology", "hosts", "chips", "shape"), [("v5e-64", 16, 4, "8x8"), ("v4-32", 4, 4, "2x2x4")])
def test_a_pod_for_each_host(topology: str, hosts: int, chips: int, shape: str) -> None:
    found = pods(topology)
    train = found["train"]["template"]["spec"]
    assert (train["completions"], train["parallelism"]) == (hosts, hosts)
    spec = train["template"]["spec"]
    assert spec["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == shape
    (container,) = spec["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert f'RANK="$MACHINE_RANK" WORLD_SIZE={hosts} stage train' in container["command"][2]
    for name in ("prepare", "finish"):
        spec = found[name]["template"]["spec"]["template"]["spec"]
        assert "nodeSelector" not in spec
        assert spec["containers"][0]["resources"] == {}


@pytest.mark.parametrize(("target", "topology"), WRITTEN)
def test_every_host_starts_the_same_launch_on_a_tpu(target: str, topology: str) -> None:
    """Absolute paths, one process a host, and not the processor that this machine has in place of a TPU."""
    text = rendered(target, topology)
    (line,) = {line.strip() for line in text.splitlines() if "stage train " in line}
    assert "PJRT_DEVICE=TPU" in line
    assert "OMP_NUM_THREADS" not in text
    assert "CPU_NUM_DEVICES" not in text
    assert line.endswith("-m sysml_run.worker train /sysml-run/runs/one/1")
    assert "--machine_rank" not in line


@pytest.mark.parametrize("topology", ["v4-32", "v5e-8"])
def test_the_script_starts_every_host_through_gcloud(topology: str, tmp_path: Path) -> None:
    """A stand-in for gcloud writes down what it is asked for; what would run on the hosts is read by bash."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "gcloud").write_text(
        '#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done >>"$ASKED"\nprintf "\\0" >>"$ASKED"\n'
    )
    (tools / "gcloud").chmod(0o755)
    script = TARGETS["gcloud"].render(made("gcloud", f"tpu:{topology}", folder))
    asked = tmp_path / "asked"
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ASKED": str(asked)}
    without = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert without.returncode != 0
    assert "the name of the TPU VM" in without.stderr
    done = subprocess.run(
        ["bash", "-c", script], env={**env, "TPU_NAME": "mine", "ZONE": "z"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    calls = [call.split("\0") for call in asked.read_text().split("\0\0") if call]
    assert [call[:4] for call in calls] == [["compute", "tpus", "tpu-vm", name] for name in ("ssh", "scp", "ssh")]
    assert all(call[4:7] == ["--zone", "z", "--worker=all"] for call in calls)
    assert str(folder / "plan.json") in calls[1]
    for call in (calls[0], calls[2]):
        command = call[call.index("--command") + 1]
        assert subprocess.run(["bash", "-n", "-c", command], capture_output=True).returncode == 0


# What runs on the hosts, with stand-ins for the metadata server and the stages

CURL = """\
#!/bin/sh
case "$*" in
*agent-worker-number) echo "$RANK_HERE" ;;
*) echo 0:0:10.0.0.1,0:0:10.0.0.2 ;;
esac
"""
WORKER = """\
#!/bin/sh
for word; do run=$word; done
[ ! -e "$run/fails" ] || exit 7
for word; do [ "$word" != prepare ] || { mkdir -p "$run/records"; touch "$run/records/prepare.json"; }; done
echo "$* ${HF_TOKEN-none} ${OTHER-none}" >>"$run/calls"
"""


class Hosts:
    """A slice of several hosts in a folder that stands for the root."""

    def __init__(self, root: Path) -> None:
        script = TARGETS["gcloud"].render(made("gcloud", "tpu:v4-32")).replace("/sysml-run", f"{root}/sysml-run")
        parts = script.split(" <<'END' || true\n")[1:]
        self.before, self.all = (part.partition("END\n")[0] for part in parts)
        self.home, self.run, self.bin = root / "home", root / "sysml-run/runs/one/1", root / "bin"
        for folder in (self.home, self.run, self.bin, root / "sysml-run-files"):
            folder.mkdir(parents=True)
        (root / "sysml-run-files/recipe.json").write_text("{}")
        for name, text in {"curl": CURL, "python": WORKER, "accelerate": WORKER}.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    def start(self, rank: int) -> subprocess.Popen[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(self.home), "RANK_HERE": str(rank)}
        return subprocess.Popen(["bash", "-c", self.all], env=env, text=True, stderr=subprocess.PIPE)

    def ended(self, host: subprocess.Popen[str]) -> tuple[int, str]:
        said = host.communicate(timeout=60)[1]
        return host.returncode, said

    def calls(self) -> str:
        return (self.run / "calls").read_text()


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path / "root")


def test_the_others_train_once_the_first_has_prepared(hosts: Hosts) -> None:
    (hosts.run / "records").mkdir()
    other = hosts.start(1)
    assert hosts.ended(hosts.start(0))[0] == 0
    assert hosts.ended(other)[0] == 0
    assert hosts.calls().count("worker train") == 2
    assert "evaluate" in hosts.calls()
    assert not (hosts.run / ".failed").exists()


@pytest.mark.parametrize("why", ["fails", "recipe.json"])
def test_the_others_end_when_the_first_cannot_prepare(why: str, hosts: Hosts) -> None:
    """Also where rows of an earlier run lie there."""
    (hosts.run / why).write_text("another")
    if why == "recipe.json":
        (hosts.run / "records").mkdir()
        (hosts.run / "records/prepare.json").touch()
    assert hosts.ended(hosts.start(0))[0] == {"fails": 7, "recipe.json": 2}[why]
    code, said = hosts.ended(hosts.start(1))
    assert (code, said) == (1, "host 0 has not prepared the rows: see what it says\n")


def test_a_host_that_waits_can_be_stopped(hosts: Hosts) -> None:
    host = hosts.start(1)
    time.sleep(1)
    host.send_signal(signal.SIGTERM)
    assert hosts.ended(host)[0] == STOPPED
    assert (hosts.run / ".stopped").exists()


def test_words_of_an_earlier_start_are_removed_on_every_host_before_any_starts(hosts: Hosts) -> None:
    names = [".stopped", ".failed", ".prepared"]
    for name in names:
        (hosts.run / name).touch()
    *_, last = hosts.before.splitlines()
    subprocess.run(["bash", "-c", last], check=True)
    assert not [name for name in names if (hosts.run / name).exists()]


def test_secrets_come_from_a_file_that_only_its_owner_reads(hosts: Hosts) -> None:
    file = hosts.home / ".sysml-run-secrets"
    file.write_text("OTHER=x\nHF_TOKEN=hf_a=b")
    assert hosts.ended(hosts.start(0)) == (2, f"others may read {file}: chmod 600 {file}\n")
    file.chmod(0o600)
    assert hosts.ended(hosts.start(0))[0] == 0
    assert " hf_a=b none\n" in hosts.calls()
    assert "# On every host, where it is wanted: ~/.sysml-run-secrets, mode 600" in rendered("gcloud", "v4-32")


def test_shellcheck_finds_nothing(hosts: Hosts) -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "shellcheck"
    for script in (hosts.before, hosts.all, rendered("gcloud", "v4-32"), rendered("gcloud", "v5e-64")):
        done = subprocess.run([program, "--shell=bash", "-"], input=script, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout
