"""Jobs for clusters: golden files, the programs and schemas they are for, and the scripts run with stand-ins."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sysml_run import cli, document, options, overrides, plan, planview
from sysml_run.errors import UsageError
from sysml_run.machine import Machine
from sysml_run.resolve import resolve
from sysml_run.targets import TARGETS, inputs, job, kubernetes, secrets
from sysml_run.targets.base import FILES, STOPPED, VOLUME, Job
from sysml_run.targets.skypilot import CARDS

SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "shellcheck"
GOLDEN = Path(__file__).parent / "targets"
HERE = Machine(32, 256 * 2**30, "New", True, "this processor has avx512_bf16", "/venv/bin/python")
SIZES = {"1x1": "gpu:h100-80gb", "1x8": "gpu:8xh100-80gb", "2x8": "gpu:2x8xh100-80gb"}
CLUSTERS = {name: target for name, target in TARGETS.items() if name != "gcloud"}  # slices: test_targets_tpu.py
RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
lora: {}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 40, save_steps: 20}
"""


def made(target: str, *assignments: str, text: str = RECIPE, hardware: str = "cpu", here: Machine = HERE,
         folder: Path = Path("/shared/runs/1")) -> Job:  # fmt: skip
    """The job of a recipe for hardware such as cpu or gpu:8xh100-80gb."""
    read = overrides.swap_hardware(document.parse(text, "one.yaml"), hardware)
    resolved = resolve(overrides.apply(read, assignments))
    chosen = TARGETS[target]
    run = chosen.run(folder, resolved.recipe.name)
    laid = plan.make(resolved, chosen.machine(here), run)
    return job(laid, planview.values(laid, "one.yaml"), text, run, folder)


def sized(target: str, size: str, **rest: Any) -> Job:
    return made(target, "hardware.zero_stage=2", hardware=SIZES[size], **rest)


def rendered(target: str, size: str) -> str:
    """What is reviewed: without the ConfigMap, whose texts are those of the run directory."""
    text = TARGETS[target].render(sized(target, size, text=RECIPE.replace("tiny:llama", "owner/model")))
    return text.rpartition("\n---\n")[2]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", CLUSTERS)
def test_golden(target: str, size: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"{target}_{size}{Path(TARGETS[target].file).suffix}", rendered(target, size))


def test_no_golden_job_is_left_over() -> None:
    wanted = {f"{name}_{size}{Path(target.file).suffix}" for name, target in CLUSTERS.items() for size in SIZES}
    assert {file.name for file in GOLDEN.iterdir()} == wanted


def test_targets_are_rows_and_files_and_choices() -> None:
    folder = Path(kubernetes.__file__).parent
    assert {file.stem for file in folder.glob("*.py")} == {"__init__", "base", *TARGETS}
    with pytest.raises(SystemExit):
        options.parser("plan").parse_args(["one.yaml", "--target", "none"])
    for name in TARGETS:
        assert options.parser("plan").parse_args(["one.yaml", "--target", name]).target == name


# What the tools that read them say


def scripts(target: str, size: str) -> list[str]:
    """Every shell script in a job, each as a whole."""
    text = TARGETS[target].render(one := sized(target, size))
    if target == "slurm":
        guard = text.partition("<<'END' || true\n")[2].partition("END\n")[0]
        return [text, *(guard + part.partition("END\n")[0] for part in text.split(" <<'END'\n")[1:])]
    if target == "skypilot":
        return [yaml.safe_load(text)["run"]]
    pods = [pod_of(part) for part in kubernetes.job_set(one)["spec"]["replicatedJobs"]]
    guard = kubernetes.config_map(one)["data"]["launch_guard.sh"]
    return [guard + pod["containers"][0]["command"][2].partition("\n")[2] for pod in pods]


def pod_of(replicated: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = replicated["template"]["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", CLUSTERS)
def test_shellcheck_finds_nothing(target: str, size: str) -> None:
    found = scripts(target, size)
    assert len(found) == {"slurm": 4, "kubernetes": 3, "skypilot": 1}[target]
    for script in found:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        command = [SHELLCHECK, "--shell=bash", "-"]
        done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("size", SIZES)
def test_the_job_set_is_one(size: str) -> None:
    """The models of Kubeflow's client are made from JobSet's own schema; they drop what they do not know."""
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    text = TARGETS["kubernetes"].render(sized("kubernetes", size))
    config, written = yaml.safe_load_all(text)
    read = JobsetV1alpha2JobSet.from_dict(written)
    assert read is not None
    assert read.to_dict() == written
    assert config["kind"] == "ConfigMap"
    assert all("/" not in key for key in config["data"])


def test_jobs_of_a_job_set_have_what_training_needs() -> None:
    written = kubernetes.job_set(sized("kubernetes", "2x8", text=RECIPE.replace("tiny:llama", "owner/model")))
    prepare, train, finish = written["spec"]["replicatedJobs"]
    assert [part["template"]["spec"]["parallelism"] for part in (prepare, train, finish)] == [1, 2, 1]
    assert pod_of(train)["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert pod_of(prepare)["containers"][0]["resources"] == {}
    (rule, _) = train["template"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [STOPPED]
    assert rule["onExitCodes"]["containerName"] == pod_of(train)["containers"][0]["name"]
    mounts = {mount["mountPath"]: mount for mount in pod_of(train)["containers"][0]["volumeMounts"]}
    assert mounts["/data/rows.jsonl"]["subPath"] == "data/data/rows.jsonl"
    assert {volume["name"] for volume in pod_of(train)["volumes"]} == {mount["name"] for mount in mounts.values()}


# What goes in


def test_secrets_are_names_and_never_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_the_value")
    for target, chosen in CLUSTERS.items():
        hub = made(target, "model.base_model=owner/model")
        assert "hf_the_value" not in chosen.render(hub)
        assert "HF_TOKEN" in chosen.render(hub)
        assert made(target).secrets == ()
    assert yaml.safe_load(TARGETS["skypilot"].render(hub))["secrets"] == {"HF_TOKEN": None}
    assert "secrets" not in yaml.safe_load(TARGETS["skypilot"].render(made("skypilot")))


def test_secrets_follow_what_the_recipe_talks_to() -> None:
    def found(*assignments: str) -> tuple[str, ...]:
        read = overrides.apply(document.parse(RECIPE, "one.yaml"), assignments)
        return secrets(resolve(read).recipe)

    assert found() == ()
    assert found("datasets=[{path: 'hub:owner/rows', type: messages}]") == ("HF_TOKEN",)
    assert found("tracking=[wandb]") == ("WANDB_API_KEY",)
    assert found("distillation={teacher: owner/big}") == ("HF_TOKEN",)


def test_inputs_are_what_lies_on_this_machine() -> None:
    paths = ("/a/rows.jsonl", "/b/*/x[0-9].json", "hub:owner/rows", "/a/rows.jsonl")
    rows = ", ".join(f"{{path: '{path}', type: messages}}" for path in paths)
    changes = [f"datasets=[{rows}]", "model.base_model=/models/m.gguf"]
    read = overrides.apply(document.parse(RECIPE, "one.yaml"), changes)
    assert inputs(resolve(read).recipe) == ("/models/m.gguf", "/a/rows.jsonl", "/b")


@pytest.mark.parametrize("broken", ["\\n", "\\r", "\\x85", "\\u2028"])
def test_a_path_that_would_become_a_command_is_refused(broken: str) -> None:
    rows = f'datasets=[{{path: "/data/a{broken}touch b", type: messages}}]'
    with pytest.raises(UsageError, match="has a line break"):
        made("kubernetes", rows)


def test_names_that_clusters_allow() -> None:
    long = made("slurm", "name=9.Long_Name".lower() + "x" * 60)
    assert long.label.startswith("run-9-long-name")
    assert len(long.label) == 32
    assert made("slurm", f"name={'a' * 31}.b").label == "a" * 31


def test_cards_have_names_in_the_catalogue() -> None:
    base = sized("skypilot", "1x8")
    for name, card in CARDS.items():
        task = yaml.safe_load(TARGETS["skypilot"].render(replace(base, card=name)))
        assert task["resources"]["accelerators"] == f"{card}:8"
    with pytest.raises(UsageError, match="no known name") as caught:
        TARGETS["skypilot"].render(replace(base, card="h100-81gb"))
    assert caught.value.hint == "did you mean h100-80gb?"
    with pytest.raises(UsageError) as caught:
        TARGETS["skypilot"].render(replace(base, card="abacus"))
    assert caught.value.hint == f"write hardware.type as one of {', '.join(CARDS)}"
    with pytest.raises(UsageError, match=r"hardware\.type is not written"):
        TARGETS["skypilot"].render(replace(base, card=None))
    assert "accelerators" not in yaml.safe_load(TARGETS["skypilot"].render(made("skypilot")))["resources"]


# The command


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "one.yaml").write_text(RECIPE.replace("/data/rows", "rows"))
    return tmp_path / "one.yaml"


@pytest.mark.parametrize("target", CLUSTERS)
def test_the_job_is_printed(target: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(recipe), "--target", target]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("#")
    assert "sysml_run.worker train" in shown
    assert cli.main(["plan", str(recipe), "--target", target, "--format", "json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["job"].splitlines()[0] == shown.splitlines()[0]
    assert written["launch"]


@pytest.mark.parametrize("target", CLUSTERS)
def test_the_job_is_written(target: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = recipe.parent / "it is written"
    assert cli.main(["plan", str(recipe), "--target", target, "--write", str(folder)]) == 0
    file = folder / TARGETS[target].file
    assert capsys.readouterr().out == f"{TARGETS[target].submit} '{file}'\n"
    text, place = file.read_text(), str(folder) if TARGETS[target].shared else f"{VOLUME}/runs/one/{folder.name}"
    by_hand = (folder / "launch/train.sh").read_text().splitlines()[-1]
    assert f"stage train {by_hand}\n" in text
    assert by_hand.endswith(f"-m sysml_run.worker train '{place}'")


def test_the_config_map_is_the_run_directory(recipe: Path) -> None:
    folder = recipe.parent / "written"
    assert cli.main(["plan", str(recipe), "--target", "kubernetes", "--write", str(folder)]) == 0
    config, jobs = yaml.safe_load_all((folder / "launch/kubernetes.yaml").read_text())
    (items,) = {
        json.dumps(volume["configMap"]["items"])
        for part in jobs["spec"]["replicatedJobs"]
        for volume in pod_of(part)["volumes"]
        if "configMap" in volume
    }
    paths = {item["key"]: item["path"] for item in json.loads(items)}
    assert set(paths) == set(config["data"])
    assert set(paths.values()) - {kubernetes.GUARD} == on_disk(folder) - {"launch/kubernetes.yaml", "started_in.txt"}
    for key, path in paths.items():
        if path != kubernetes.GUARD:
            assert config["data"][key] == (folder / path).read_text(), path


def on_disk(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


# The scripts, run with stand-ins for the cluster's programs and for training

PYTHON = f"#!{sys.executable}\n"
WORKER = """\
import json, os, pathlib, signal, sys, time
*_, stage, run = sys.argv
run, rank = pathlib.Path(run), os.environ.get("SLURM_NODEID", os.environ.get("SKYPILOT_NODE_RANK", "0"))
with (run.parent / "calls").open("a") as file:
    file.write(json.dumps([stage, rank, sys.argv[1:]]) + "\\n")
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
if (run / "fails").exists() and stage == (run / "fails").read_text():
    sys.exit(7)
if stage == "train" and (run / "long").exists():
    (run / f"at_work_{rank}").touch()
    while not list(run.glob("asked_*")):
        if asked:
            time.sleep(1.5)  # a second signal would be seen
            (run / f"asked_{len(asked)}").touch()
        time.sleep(0.05)
    sys.exit(1)  # as accelerate launch ends, whatever its processes ended with
(run / "records").mkdir(exist_ok=True)
(run / "records" / f"{stage}.json").touch()
"""
SRUN = """\
import os, pathlib, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--")]
(nodes,) = [int(word.partition("=")[2]) for word in sys.argv if word.startswith("--nodes=")]
here = pathlib.Path(__file__).parent
tasks = [
    subprocess.Popen(words, env={**os.environ, "SLURM_NODEID": str(rank)}, start_new_session=True)
    for rank in range(nodes)
]
(here / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
raise SystemExit(max(task.wait() for task in tasks))
"""
SCANCEL = """\
import contextlib, os, pathlib, signal, sys
assert sys.argv[1:] == ["--signal=TERM", "7"], sys.argv
for task in (pathlib.Path(__file__).parent / "tasks").read_text().split():
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(task), signal.SIGTERM)
"""
SCONTROL = """\
import pathlib, sys
here = pathlib.Path(__file__).parent
match sys.argv[1:]:
    case ["show", "hostnames", "node[1-2]"]:
        print("node1\\nnode2")
    case ["show", "job", "--oneliner", "7"]:
        print("JobId=7 JobState=" + (here / "state").read_text() + " Reason=None")
    case ["requeue", "7"]:
        (here / "requeued").touch()
    case _:
        sys.exit(f"scontrol: {sys.argv}")
"""
STAGES = ["prepare", "train", "evaluate", "merge", "package", "report"]


class Cluster:
    """Stand-ins in a folder that is first on PATH, a run directory, and what was called."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.run = folder / "bin", folder / "shared runs" / "1"
        self.bin.mkdir(parents=True)
        self.run.mkdir(parents=True)
        programs = {"python": WORKER, "accelerate": WORKER, "srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL}
        for name, text in programs.items():
            (self.bin / name).write_text(PYTHON + text)
            (self.bin / name).chmod(0o755)
        (self.bin / "state").write_text("RUNNING")

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(stage, rank) for stage, rank, _ in self.lines()]

    def lines(self) -> list[Any]:
        file = self.run.parent / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def script(self, size: str) -> Path:
        here = replace(HERE, python=str(self.bin / "python"))
        file = self.run / "launch" / "slurm.sbatch"
        file.parent.mkdir(exist_ok=True)
        file.write_text(TARGETS["slurm"].render(sized("slurm", size, here=here, folder=self.run)))
        return file

    def start(self, *command: str | Path, **env: str) -> subprocess.Popen[str]:
        known = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_ON_NODE": "4", **env}
        env = {**os.environ, **known, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        return subprocess.Popen(["bash", *command], env=env, text=True, stderr=subprocess.PIPE)

    def end(self, process: subprocess.Popen[str]) -> int:
        _, errors = process.communicate(timeout=60)
        assert "line " not in errors, errors  # bash names the line that it does not understand
        return process.returncode

    def at_work(self, ranks: Sequence[str]) -> None:
        end = time.monotonic() + 30
        while not all((self.run / f"at_work_{rank}").exists() for rank in ranks):
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_slurm_runs_every_stage(cluster: Cluster) -> None:
    assert cluster.end(cluster.start(cluster.script("2x8"))) == 0
    assert sorted(cluster.calls) == sorted([*((stage, "0") for stage in STAGES), ("train", "1")])
    assert [stage for stage, rank in cluster.calls if rank == "0"] == STAGES
    train = {rank: words for stage, rank, words in cluster.lines() if stage == "train"}
    for rank in ("0", "1"):
        place = ["--machine_rank", rank, "--main_process_ip", "node1", "--main_process_port", "20007"]
        assert train[rank][3:9] == place
    assert not (cluster.bin / "requeued").exists()


def test_slurm_stopped_is_requeued_and_goes_on(cluster: Cluster) -> None:
    (cluster.run / "long").touch()
    script = cluster.script("2x8")
    process = cluster.start(script)
    cluster.at_work("01")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert cluster.end(process) == STOPPED
    assert (cluster.run / "asked_1").exists()
    assert not (cluster.run / "asked_2").exists()
    assert (cluster.bin / "requeued").exists()
    (cluster.run / "long").unlink()
    assert cluster.end(cluster.start(script)) == 0
    assert [stage for stage, rank in cluster.calls if rank == "0"] == ["prepare", "train", *STAGES[1:]]


def test_slurm_stopped_on_one_machine_stops_the_others(cluster: Cluster) -> None:
    (cluster.run / "long").touch()
    process = cluster.start(cluster.script("2x8"))
    cluster.at_work("01")
    _, second = (cluster.bin / "tasks").read_text().split()
    os.kill(int(second), signal.SIGTERM)
    assert cluster.end(process) == STOPPED
    assert (cluster.bin / "requeued").exists()


def test_slurm_cancelled_is_not_requeued(cluster: Cluster) -> None:
    (cluster.run / "long").touch()
    process = cluster.start(cluster.script("1x8"))
    cluster.at_work("0")
    (cluster.bin / "state").write_text("CANCELLED")
    process.send_signal(signal.SIGTERM)
    assert cluster.end(process) == STOPPED
    assert not (cluster.bin / "requeued").exists()


def test_slurm_failed_ends_with_the_code_of_the_stage(cluster: Cluster) -> None:
    (cluster.run / "fails").write_text("evaluate")
    assert cluster.end(cluster.start(cluster.script("1x1"))) == 7
    assert cluster.calls == [("prepare", "0"), ("train", "0"), ("evaluate", "0")]
    assert not (cluster.bin / "requeued").exists()


def local(text: str, cluster: Cluster) -> str:
    """A script for another machine's folders, made for this one's."""
    run = f"{VOLUME}/runs/one/{cluster.run.name}"
    shared = str(cluster.run).replace("shared runs", "runs")
    return text.replace(FILES, str(cluster.bin.parent / "files")).replace(run, shared).replace(VOLUME, "/tmp")


@pytest.fixture
def elsewhere(cluster: Cluster) -> Cluster:
    """A cluster that brings the plan's files to a volume that holds nothing yet."""
    cluster.run.rmdir()
    cluster.run = Path(str(cluster.run).replace("shared runs", "runs"))
    (cluster.bin.parent / "files" / "launch").mkdir(parents=True)
    for name in ("recipe.json", "launch/accelerate.yaml"):
        (cluster.bin.parent / "files" / name).write_text(name)
    return cluster


def task(cluster: Cluster, rank: str, size: str = "2x8") -> subprocess.Popen[str]:
    script = yaml.safe_load(TARGETS["skypilot"].render(sized("skypilot", size)))["run"]
    ips = "10.0.0.1\n10.0.0.2"
    return cluster.start("-c", local(script, cluster), SKYPILOT_NODE_RANK=rank, SKYPILOT_NODE_IPS=ips)


def test_skypilot_runs_every_stage(elsewhere: Cluster) -> None:
    assert elsewhere.end(task(elsewhere, "1")) == 0
    assert elsewhere.calls == [("prepare", "1"), ("train", "1")]
    (elsewhere.run / "records/train.json").unlink()
    assert elsewhere.end(task(elsewhere, "0")) == 0
    assert elsewhere.calls[2:] == [(stage, "0") for stage in STAGES]
    place = ["--machine_rank", "1", "--main_process_ip", "10.0.0.1", "--main_process_port", "29500"]
    assert elsewhere.lines()[1][2][3:9] == place
    assert (elsewhere.run / "launch/accelerate.yaml").read_text() == "launch/accelerate.yaml"


def test_skypilot_stopped_says_so_and_goes_on(elsewhere: Cluster) -> None:
    elsewhere.run.mkdir(parents=True)
    (elsewhere.run / "long").touch()
    process = task(elsewhere, "0", "1x8")
    elsewhere.at_work("0")
    process.send_signal(signal.SIGTERM)
    assert elsewhere.end(process) == STOPPED
    (elsewhere.run / "long").unlink()
    assert elsewhere.end(task(elsewhere, "0", "1x8")) == 0
    assert [stage for stage, _ in elsewhere.calls] == ["prepare", "train", *STAGES]


def test_a_run_of_another_recipe_is_left_alone(elsewhere: Cluster) -> None:
    elsewhere.run.mkdir(parents=True)
    (elsewhere.run / "recipe.json").write_text("another")
    process = task(elsewhere, "0", "1x1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "holds a run of another recipe" in errors
    assert elsewhere.calls == []


def test_kubernetes_runs_every_stage(elsewhere: Cluster) -> None:
    config = kubernetes.config_map(one := sized("kubernetes", "2x8"))
    (elsewhere.bin.parent / "files" / kubernetes.GUARD).write_text(local(config["data"]["launch_guard.sh"], elsewhere))
    env = {"MASTER_ADDR": "localhost", "JOB_COMPLETION_INDEX": "0"}
    for part in kubernetes.job_set(one)["spec"]["replicatedJobs"]:
        program, *words = (local(word, elsewhere) for word in pod_of(part)["containers"][0]["command"])
        assert program == "bash"
        assert elsewhere.end(elsewhere.start(*words, **env)) == 0
    assert [stage for stage, _ in elsewhere.calls] == STAGES
    place = ["--machine_rank", "0", "--main_process_ip", "localhost", "--main_process_port", "29500"]
    assert elsewhere.lines()[1][2][3:9] == place


@pytest.mark.slow
def test_slurm_stopped_in_real_training_goes_on_from_its_checkpoint(cluster: Cluster) -> None:
    folder = cluster.bin.parent
    for first, second in itertools.product("abcdefgh", repeat=2):
        turns = [{"role": "user", "content": f"Say {first * 9}"}, {"role": "assistant", "content": second * 9}]
        with (folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps({"messages": turns}) + "\n")
    text = RECIPE.replace("/data/rows", "rows").replace("40, save_steps: 20", "60, logging_steps: 1")
    (folder / "one.yaml").write_text(text)
    package = {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "XDG_CACHE_HOME": str(folder / "cache")}
    asked = [
        "plan",
        "one.yaml",
        "--hardware",
        "cpu",
        "--set",
        "hardware.threads=1",
        "--target",
        "slurm",
        "--write",
        "real",
    ]
    command = [sys.executable, "-m", "sysml_run.cli", *asked]
    subprocess.run(command, cwd=folder, env={**os.environ, **package}, check=True)
    for stage in STAGES[2:]:
        (folder / "real/records").mkdir(exist_ok=True)
        (folder / f"real/records/{stage}.json").touch()  # not of interest here
    script, metrics = folder / "real/launch/slurm.sbatch", folder / "real/metrics.jsonl"
    process, end = cluster.start(script, **package), time.monotonic() + 120
    while not metrics.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    assert process.returncode == STOPPED
    assert (cluster.bin / "requeued").exists()
    (checkpoint,) = (folder / "real/checkpoints").iterdir()
    again = cluster.start(script, **package)
    again.communicate(timeout=240)
    assert again.returncode == 0
    record = json.loads((folder / "real/records/train.json").read_text())
    assert record["resumed_from"] == checkpoint.name
    assert record["steps"] == 60
    assert "model/adapter_model.safetensors" in json.loads((folder / "real/manifest.json").read_text())["files"]
    assert len(metrics.read_text().splitlines()) == 60
