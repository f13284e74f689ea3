"""Plans: golden files for whole ones, and what each choice does."""

from __future__ import annotations

import copy
import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run import document, overrides, plan, planview, resources
from sysml_run.backends import BACKENDS, named
from sysml_run.errors import UsageError
from sysml_run.estimate import disk
from sysml_run.machine import Machine
from sysml_run.plan import Plan
from sysml_run.resolve import Resolved, resolve
from sysml_run.worker import __main__ as worker

PLANS = Path(__file__).parent / "plans"
PROJECT = resources.recipes().parent
SHIPPED = sorted(path.stem for path in resources.recipes().glob("*.yaml"))
OLD = Machine(4, 16 * 2**30, "Old", False, "this processor has no bf16 instructions", "/venv/bin/python")
NEW = Machine(32, 256 * 2**30, "New", True, "this processor has avx512_bf16", "/venv/bin/python")


RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
prompt: {sequence_len: 512}
lora: {}
optimizer: {name: adamw, learning_rate: 1e-3}
training: {num_epochs: 1, micro_batch_size: 8}
hardware: {accelerator: cpu}
"""


def shipped(name: str, *assignments: str, hardware: str | None = None) -> Resolved:
    read = overrides.apply(document.load(resources.recipes() / f"{name}.yaml"), assignments)
    return resolve(overrides.swap_hardware(read, hardware) if hardware else read)


def resolved(*assignments: str, hardware: str | None = None) -> Resolved:
    read = overrides.apply(document.parse(RECIPE, "one.yaml"), assignments)
    return resolve(overrides.swap_hardware(read, hardware) if hardware else read)


def on_cards(name: str, size: str) -> Plan:
    """A shipped recipe with the ZeRO stage left to the plan."""
    read = overrides.swap_hardware(document.load(resources.recipes() / f"{name}.yaml"), f"gpu:{size}")
    return plan.make(resolve(overrides.apply(read, ["hardware.zero_stage=auto"])), NEW, "/runs/1")


CARDS = ("1xl4-24gb", "8xa100-80gb", "2x8xh100-80gb")
ONE = resolved()
TPUS = ("v3-8", "v4-32", "v5e-64", "v6e-256")


def made_for(recipe: Callable[[str], Resolved], topology: str) -> Plan:
    return plan.make(recipe(topology), NEW, "/runs/1")


def specialist(topology: str) -> Resolved:
    """A full fine-tune of a model that one core cannot hold."""
    full = ("model.base_model=meta-llama/Meta-Llama-3-8B", "lora=null", "training.gradient_checkpointing=true")
    return resolved(*full, "prompt.packing=true", "training.micro_batch_size=1", hardware=f"tpu:{topology}")


def on_tpu(topology: str) -> Resolved:
    """The generalist; the batch that it asks for is smaller than one row for each of 256 devices."""
    read = overrides.swap_hardware(
        document.load(resources.recipes() / "generalist_mixtral_lora.yaml"), f"tpu:{topology}"
    )
    return resolve(overrides.apply(read, ["training.effective_batch_size=512"]))


def as_shipped(name: str) -> Plan:
    return plan.make(shipped(name), NEW, "/runs/1", offline=True)


VARIANTS: dict[str, Callable[[], Plan]] = {
    **{f"shipped_{name}": partial(as_shipped, name) for name in SHIPPED},
    "quickstart": lambda: plan.make(shipped("quickstart"), OLD, "/runs/a b"),
    "quickstart_bf16_offline": lambda: plan.make(shipped("quickstart"), NEW, "/runs/1", offline=True),
    "generalist_on_cpu": lambda: plan.make(shipped("generalist_mixtral_lora", hardware="cpu"), NEW, "/runs/1"),
    "full_fine_tune_long_rows": lambda: plan.make(
        resolved("lora=null", "prompt.sequence_len=2048", "hardware.threads=3"), OLD, "/runs/1"
    ),
    "two_processes_zero_3": lambda: plan.make(
        resolved("hardware={accelerator: cpu, devices: 2, zero_stage: 3, precision: bf16}"), OLD, "/runs/1"
    ),
    **{f"generalist_on_{size}": partial(on_cards, "generalist_mixtral_lora", size) for size in CARDS},
    **{f"quickstart_on_{size}": partial(on_cards, "quickstart", size) for size in CARDS},
    "without_deepspeed": lambda: plan.make(
        resolved("hardware={accelerator: gpu, devices: 2, zero_stage: null, precision: fp16}"), NEW, "/runs/1"
    ),
    **{f"specialist_on_{name}": partial(made_for, specialist, name) for name in TPUS},
    **{f"generalist_on_{name}": partial(made_for, on_tpu, name) for name in TPUS},
    "virtual_devices": lambda: plan.make(
        resolved(hardware="tpu:v3-8"), dataclasses.replace(OLD, virtual=4), "/runs/1", offline=True
    ),
}


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(disk, "find_spec", lambda name: None)


@pytest.mark.parametrize("name", VARIANTS)
def test_golden(name: str, golden: Callable[[Path, str], None]) -> None:
    shown = planview.values(VARIANTS[name](), f"recipes/{name}.yaml")
    del shown["defaulted"]  # every key of the language but a few
    golden(PLANS / f"{name}.json", json.dumps(shown, indent=2).replace(f"{PROJECT}/", "/project/") + "\n")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_fits_the_machine_that_it_names(name: str) -> None:
    """Planned without a connection, with the memory, the time and the room of it."""
    shown = planview.values(as_shipped(name), name)
    assert shown["parameters"]["total"] > 10**8
    assert shown["memory"]["fits"] is True
    assert shown["disk"]["run_gb"] > 0
    assert shown["time"]["flops_per_step"] > 0


def test_no_golden_plan_is_left_over() -> None:
    assert {file.stem for file in PLANS.iterdir()} == set(VARIANTS)


def test_stages_are_rows_of_the_front_and_files_of_the_worker() -> None:
    names = tuple(stage.name for stage in plan.STAGES)
    assert names == worker.STAGES
    folder = Path(worker.__file__).parent
    assert all("\ndef run(recipe: Recipe, rundir: RunDir)" in (folder / f"{name}.py").read_text() for name in names)


def test_backends_are_rows_and_files_and_have_golden_plans() -> None:
    folder = Path(plan.__file__).parent / "backends"
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", "base"}
    assert {type(backend).__module__.rpartition(".")[2] for backend in BACKENDS.values()} == files
    assert {named(make().recipe) for make in VARIANTS.values()} == set(BACKENDS)


@given(cores=st.integers(1, 512), bf16=st.booleans(), run=st.from_regex(r"/[ -~]{1,40}", fullmatch=True))
def test_the_same_recipe_and_machine_give_the_same_plan(cores: int, bf16: bool, run: str) -> None:
    machine = dataclasses.replace(OLD, cores=cores, bf16=bf16)
    before = copy.deepcopy(ONE.values)
    made = plan.make(ONE, machine, run)
    assert made == plan.make(ONE, machine, run)
    assert ONE.values == before
    assert all(shlex.split(plan.command(launch))[-len(launch.argv) :] == list(launch.argv) for launch in made.launches)


def test_what_was_left_open_is_settled_with_its_reason() -> None:
    made = plan.make(ONE, NEW, "/runs/1")
    assert made.values["hardware"]["precision"] == made.recipe.hardware.precision == "bf16"
    assert made.sources["hardware.precision"] == "derived: this processor has avx512_bf16"
    assert made.values["hardware"]["threads"] == 32
    assert made.values["training"]["gradient_accumulation_steps"] == 1
    assert {item.pointer for item in made.derived} == {
        "hardware.precision",
        "hardware.threads",
        "model.attn_implementation",
        "training.gradient_accumulation_steps",
    }


def test_what_is_written_stays() -> None:
    written = ("hardware.precision=fp32", "hardware.threads=5", "model.attn_implementation=sdpa")
    made = plan.make(resolved(*written, "training.gradient_accumulation_steps=3"), NEW, "/runs/1")
    assert made.derived == ()
    assert made.sources["hardware.threads"] == "--set hardware.threads=5"
    assert made.recipe.hardware.threads == 5
    assert made.batch == {"micro": 8, "accumulation": 3, "world_size": 1, "effective": 24}


@pytest.mark.parametrize(("length", "attention"), [(512, "eager"), (513, "sdpa")])
def test_attention_by_length(length: int, attention: str) -> None:
    made = plan.make(resolved(f"prompt.sequence_len={length}"), OLD, "/runs/1")
    assert made.recipe.model.attn_implementation == attention


def test_the_effective_batch_size_is_solved_for() -> None:
    made = plan.make(resolved("training.effective_batch_size=64"), OLD, "/runs/1")
    assert made.recipe.training.gradient_accumulation_steps == 8
    assert made.batch["effective"] == 64
    assert made.sources["training.gradient_accumulation_steps"].startswith("derived: effective_batch_size 64 / 8 rows")


def test_the_best_checkpoint_is_kept_where_the_loss_is_measured() -> None:
    measured = ("evaluation.every_steps=7", "evaluation.best={}")
    made = plan.make(resolved(*measured), OLD, "/runs/1")
    assert made.recipe.training.save_steps == 7
    assert made.sources["training.save_steps"].startswith("derived: the best checkpoint")
    made = plan.make(resolved(*measured, "training.save_steps=14"), OLD, "/runs/1")
    assert made.recipe.training.save_steps == 14
    assert plan.make(ONE, OLD, "/runs/1").recipe.training.save_steps is None


def test_devices_and_nodes_multiply() -> None:
    recipe = resolved(hardware="gpu:2x8").recipe
    assert plan.world_size(recipe) == 16
    assert plan.batch(recipe)["effective"] == 8 * 16
    assert plan.world_size(resolved(hardware="tpu:v3-8").recipe) == 8


@pytest.mark.parametrize(
    ("hardware", "virtual", "machines"),
    [("tpu:v3-8", 0, 1), ("tpu:v4-32", 0, 4), ("tpu:v4-32", 16, 1), ("gpu:2x8", 0, 2), ("cpu", 0, 1)],
)
def test_machines_that_train_together(hardware: str, virtual: int, machines: int) -> None:
    recipe = resolved(hardware=hardware).recipe
    assert plan.machines(recipe, dataclasses.replace(OLD, virtual=virtual)) == machines


def test_a_model_that_is_not_known_is_planned_as_far_as_it_goes() -> None:
    made = plan.make(resolved("model.base_model=some/model", hardware="tpu:v3-8"), OLD, "/runs/1")
    named = {item.pointer for item in made.derived}
    assert {"global micro batch", "processes"} <= named
    assert "global micro batch" not in made.sources
    assert planview.values(made, "one.yaml")["memory"] is None


def test_what_a_slice_needs_stays_where_it_is_written() -> None:
    written = ("prompt.padding=bucketed", "model.attn_implementation=sdpa")
    made = plan.make(resolved(*written, hardware="tpu:v3-8"), OLD, "/runs/1")
    assert (made.recipe.prompt.padding, made.recipe.model.attn_implementation) == ("bucketed", "sdpa")


def test_threads_are_shared_among_processes() -> None:
    made = plan.make(resolved("hardware.devices=3"), OLD, "/runs/1")
    assert made.recipe.hardware.threads == 1
    assert all(launch.env["OMP_NUM_THREADS"] == "1" for launch in made.launches)


def test_offline_is_in_every_process() -> None:
    online = plan.make(ONE, OLD, "/runs/1")
    offline = plan.make(ONE, OLD, "/runs/1", offline=True)
    assert all(launch.env["HF_HUB_OFFLINE"] == "1" for launch in offline.launches)
    assert not any("HF_HUB_OFFLINE" in launch.env for launch in online.launches)


ALL = ["prepare", "train", "evaluate", "merge", "package", "report"]


@pytest.mark.parametrize(
    ("only", "until", "left"),
    [
        ([], None, ALL),
        ([], "evaluate", ALL[:3]),
        (["merge", "train"], None, ["train", "merge"]),
        (["merge", "train"], "train", ["train"]),
    ],
)
def test_only_and_until(only: Sequence[str], until: str | None, left: list[str]) -> None:
    made = plan.make(ONE, OLD, "/runs/1")
    assert [launch.stage for launch in plan.choose(made, only, until)] == left


@pytest.mark.parametrize(
    ("only", "until", "words"),
    [
        (["trian"], None, "no stage 'trian'"),
        ([], "merge", "no stage 'merge'"),
        (["report"], "train", "--only report --until train leaves nothing to run"),
    ],
)
def test_stages_that_are_not_there(only: Sequence[str], until: str | None, words: str) -> None:
    made = plan.make(resolved("lora=null"), OLD, "/runs/1")
    with pytest.raises(UsageError, match=words) as error:
        plan.choose(made, only, until)
    assert "prepare, train, evaluate, package, report" in str(error.value.hint)
