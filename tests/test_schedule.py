"""Steps of a run and learning rates at its milestones; tests/contract holds the rates to the real schedulers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysml_run import document, machine, overrides, plan, planview, resources, schedule
from sysml_run.prepared import Counted
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve
from sysml_run.schedule import Steps

RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {num_epochs: 2, micro_batch_size: 4}
"""
BATCH = {"micro": 4, "accumulation": 1, "world_size": 1, "effective": 4}


def recipe(*assignments: str) -> Recipe:
    return resolve(overrides.apply(document.parse(RECIPE, "one.yaml"), assignments)).recipe


def test_the_quickstart_of_the_benchmark() -> None:
    """323 training rows, as in benchmarks/results: 81 batches of at most 4 rows, twice; the warm-up is 5 % of it."""
    found = resolve(document.load(resources.recipes() / "quickstart.yaml")).recipe
    assert schedule.steps(323, plan.batch(found), found) == Steps(81, 162, 9)
    assert schedule.learning_rate(found, 0, 162) == 0
    assert schedule.learning_rate(found, 9, 162) == 1.5e-3
    assert schedule.learning_rate(found, 162, 162) == 0


@pytest.mark.parametrize(
    ("rows", "batch", "each"),
    [
        (8, {}, 2),
        (9, {}, 3),
        (1, {}, 1),
        (0, {}, 1),
        (9, {"accumulation": 2}, 2),
        (16, {"accumulation": 2}, 2),
        (17, {"accumulation": 4}, 2),
        (17, {"world_size": 2}, 3),
        (17, {"world_size": 8, "accumulation": 2}, 1),
    ],
)
def test_a_last_step_of_fewer_rows_is_a_step(rows: int, batch: dict[str, int], each: int) -> None:
    assert schedule.steps(rows, BATCH | batch, recipe()) == Steps(each, 2 * each, 0)


@pytest.mark.parametrize(("rows", "each"), [(64, 4), (71, 4), (72, 5), (8, 1), (7, 1)])
def test_a_slice_drops_a_last_batch_of_fewer_rows(rows: int, each: int) -> None:
    batch = {"micro": 1, "accumulation": 2, "world_size": 8, "effective": 16}
    tpu = recipe("training.num_epochs=1", "hardware={accelerator: tpu, topology: v3-8}")
    assert schedule.steps(rows, batch, tpu) == Steps(each, each, 0)


def test_parts_of_an_epoch_are_rounded_up() -> None:
    assert schedule.steps(40, BATCH, recipe("training.num_epochs=1.25")) == Steps(10, 13, 0)


@pytest.mark.parametrize(
    ("changes", "rows", "wanted"),
    [
        ((), None, None),
        (("prompt.packing=true",), 40, None),
        (("training.num_epochs=null", "training.max_steps=7"), None, Steps(None, 7, 0)),
        (("training.num_epochs=null", "training.max_steps=7", "prompt.packing=true"), 40, Steps(None, 7, 0)),
        (("training.num_epochs=null", "training.max_steps=7"), 40, Steps(10, 7, 0)),
        (("optimizer.warmup_steps=3",), 40, Steps(10, 20, 3)),
        (("optimizer.warmup_ratio=0.06",), 40, Steps(10, 20, 2)),
    ],
)
def test_what_is_known_of_the_steps(changes: tuple[str, ...], rows: int | None, wanted: Steps | None) -> None:
    assert schedule.steps(rows, BATCH, recipe(*changes)) == wanted


def test_plan_as_json_has_the_steps() -> None:
    made = plan.make(resolve(document.parse(RECIPE, "one.yaml")), machine.look(), "/runs/1")
    assert planview.values(made, "one.yaml")["steps"] is None
    report = {"splits": {"train": {"rows": 40, "tokens": {"total": 400}}}}
    counted = planview.values(made, "one.yaml", Counted({"train": 40}, report))
    assert counted["steps"] == {"per_epoch": 10, "total": 20, "warmup": 0}


def test_milestones() -> None:
    found = recipe("optimizer.lr_scheduler=linear", "optimizer.warmup_steps=4")
    steps = Steps(10, 20, 4)
    assert schedule.milestones(found, steps) == {"start": 0, "after_warmup": 1e-3, "half": 6.25e-4, "end": 0}


def test_a_run_shorter_than_its_warm_up_never_reaches_its_rate() -> None:
    found = schedule.milestones(recipe("optimizer.warmup_steps=40"), Steps(10, 20, 40))
    assert found == {"start": 0, "after_warmup": 5e-4, "half": 2.5e-4, "end": 5e-4}


@pytest.mark.parametrize(
    ("changes", "start", "end"),
    [
        ((), 1e-3, 0),
        (("optimizer.min_lr_ratio=0.1", "optimizer.warmup_ratio=0.1"), 0, 1e-4),
        (("optimizer.lr_scheduler=constant",), 1e-3, 1e-3),
        (("optimizer.lr_scheduler=inverse_sqrt",), 1e-3, None),
        (("optimizer.warmup_steps=3",), 0, None),
        (("optimizer.lr_scheduler=reduce_lr_on_plateau",), 1e-3, None),
    ],
)
def test_what_is_known_without_the_steps(changes: tuple[str, ...], start: float, end: float | None) -> None:
    found = schedule.milestones(recipe(*changes), None)
    assert found == {"start": start, "after_warmup": 1e-3, "half": None, "end": end}


def test_how_far_a_plateau_takes_it_down_is_not_known_before() -> None:
    found = recipe("optimizer.lr_scheduler=reduce_lr_on_plateau", "optimizer.warmup_steps=4")
    wanted = {"start": 0, "after_warmup": 1e-3, "half": None, "end": None}
    assert schedule.milestones(found, Steps(10, 20, 4)) == wanted


SHAPES: dict[str, Any] = {"name": st.sampled_from(sorted(schedule.SHAPES)), "warm": st.integers(0, 30)}


@given(total=st.integers(1, 60), step=st.integers(0, 60), **SHAPES)
def test_rates_stay_between_zero_and_the_recipes(name: str, warm: int, total: int, step: int) -> None:
    found = recipe(f"optimizer.lr_scheduler={name}", f"optimizer.warmup_steps={warm}")
    assert 0 <= schedule.learning_rate(found, min(step, total), total) <= 1e-3
