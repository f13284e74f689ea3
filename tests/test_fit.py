"""The smallest changes by which a recipe fits: that each helps, costs least, and is a recipe again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run import document, fit, overrides, plan, rules, savings, validate
from sysml_run.estimate.verdict import verdict
from sysml_run.fit import Changed, Fit
from sysml_run.machine import Machine
from sysml_run.plan import Settled
from sysml_run.resolve import Resolved, resolve

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: meta-llama/Meta-Llama-3-8B}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
prompt: {sequence_len: 2048}
training: {max_steps: 1, micro_batch_size: 8}
"""
MIXTRAL = ("model.base_model=mistralai/Mixtral-8x7B-Instruct-v0.1", "lora={target_modules: attention}")


@pytest.fixture(autouse=True)
def _no_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.getbasetemp()))


def read(hardware: str, *changes: str) -> document.Document:
    return overrides.apply(overrides.swap_hardware(document.parse(RECIPE, "r.yaml"), hardware), changes)


def settled(hardware: str, *changes: str) -> Settled:
    return plan.settle(resolve(read(hardware, *changes)), HERE)


def found(hardware: str, *changes: str, **more: Any) -> Fit:
    made = fit.find(settled(hardware, *changes), HERE, **more)
    assert made is not None
    return made


def sets(made: Fit) -> dict[str, Any]:
    return {change.pointer: change.after for change in made.changes}


def test_what_fits_is_left_alone() -> None:
    made = found("gpu:8xh200-141gb", "lora={}", "training.micro_batch_size=1")
    assert made.enough
    assert made.changes == ()
    assert made.after == made.before


def test_what_costs_no_speed_comes_first() -> None:
    """A card on which a smaller micro batch or checkpointing is enough is not offered a 4-bit base."""
    made = found("gpu:1xa100-40gb", "lora={}")
    assert made.before.word == "does not fit"
    assert made.after.word == "fits"
    assert set(sets(made)) <= {
        *("model.kernels", "training.gradient_checkpointing", "training.micro_batch_size"),
        "training.gradient_accumulation_steps",
    }


def test_every_change_is_needed() -> None:
    """Without any one of them, or with one step less of it, it does not fit."""
    made = found("gpu:1xl4-24gb", "lora={}", "training.micro_batch_size=16")
    assert made.enough
    typed = fit.assignments(made.changes)
    assert len(typed) >= 2
    for left_out in typed:
        if "accumulation" in left_out:
            continue
        kept = [each for each in typed if each != left_out]
        without = verdict(settled("gpu:1xl4-24gb", "lora={}", "training.micro_batch_size=16", *kept).recipe, HERE)
        assert without is not None
        assert without.ends[1] > made.limit, left_out


def test_a_step_stays_of_as_many_rows() -> None:
    for effective in ("null", "32"):
        changes = ("lora={}", f"training.effective_batch_size={effective}")
        made = found("gpu:1xl4-24gb", *changes)
        assert "training.micro_batch_size" in sets(made)
        after = settled("gpu:1xl4-24gb", *changes, *fit.assignments(made.changes))
        assert (
            plan.batch(after.recipe)["effective"] == plan.batch(settled("gpu:1xl4-24gb", *changes).recipe)["effective"]
        )


def test_sharding_before_offloading() -> None:
    made = found("gpu:8xh100-80gb", *MIXTRAL, "training.micro_batch_size=1")
    assert sets(made)["hardware.zero_stage"] == 3
    assert not any("offload" in name for name in sets(made))


def test_one_card_for_mixtral_takes_its_weights_from_the_machine() -> None:
    made = found("gpu:1xl4-24gb", *MIXTRAL, "training.micro_batch_size=1", "training.gradient_checkpointing=true")
    assert sets(made)["hardware.offload.parameters"] == "cpu"
    assert sets(made)["hardware.zero_stage"] == 3
    assert made.after.estimate.host > 90e9


def test_where_no_way_is_left_adapters_are() -> None:
    """8 billion parameters with AdamW on slices that have 137 GB in all, and nothing to offload to."""
    made = found("tpu:v3-8")
    assert made.before.word == "does not fit"
    assert made.after.word == "fits"
    assert sets(made)["lora"] == {"r": 16, "alpha": 32}


def test_all_of_it_goes_to_the_machine_before_another_training_is_proposed() -> None:
    """8 billion parameters with AdamW on 16 GB: weights, their gradients twice, and AdamW's state with its copy."""
    made = found("gpu:1xt4-16gb", "hardware.precision=fp16", "model.dtype=float16")
    assert (made.before.word, made.after.word) == ("does not fit", "fits")
    assert "lora" not in sets(made)
    assert made.after.estimate.host == pytest.approx(20 * 8_030_261_248, rel=0.11)


def test_nothing_makes_it_fit() -> None:
    made = found("tpu:v2-8", *MIXTRAL)
    assert not made.enough
    assert made.after.word == "does not fit"
    assert made.after.estimate.total < made.before.estimate.total
    assert sets(made)["training.micro_batch_size"] == 1


@pytest.mark.parametrize(
    ("hardware", "changes"), [("gpu:8", ()), ("gpu:1xl4-24gb", ("model.base_model=nobody/knows",))]
)
def test_what_cannot_be_known(hardware: str, changes: tuple[str, ...]) -> None:
    assert fit.find(settled(hardware, *changes), HERE) is None


def test_a_run_that_failed_wants_less_than_it_was_estimated_to_take() -> None:
    """It should have fitted, and did not: the estimate is what has to go down."""
    fits = ("lora={}", "training.micro_batch_size=2", "training.gradient_checkpointing=true")
    assert found("gpu:1xh100-80gb", *fits).changes == ()
    made = found("gpu:1xh100-80gb", *fits, failed=True)
    assert made.limit == made.before.estimate.total
    assert made.changes
    assert made.after.ends[1] <= made.before.estimate.total
    smaller = found("gpu:1xh100-80gb", *fits, failed=True, batch=(2, 256))
    assert smaller.limit < made.limit
    assert found("gpu:1", *fits, failed=True).limit == made.limit
    assert fit.find(settled("gpu:1", "model.base_model=nobody/knows"), HERE, failed=True) is None


def test_what_the_plan_chose_stays_where_it_would_choose_anew() -> None:
    """`zero_stage: auto` looks at the weights alone, and would shard less once they are in 4 bits."""
    changes = ("hardware.zero_stage=auto", "lora={}", "training.micro_batch_size=1", "prompt.sequence_len=512")
    made = settled("gpu:2xrtx3060-12gb", *changes)
    values = Resolved(made.recipe, made.values, made.sources)
    change = savings.Saving({"quantization.load": "nf4"}, "slower")
    tried = fit.Tried((), values, (change,), None)
    pinned = {each.pointer: each for each in fit._changes(made, tried)}
    assert pinned["hardware.zero_stage"].after == made.recipe.hardware.zero_stage
    assert pinned["hardware.zero_stage"].costs == fit.KEPT
    assert "model.attn_implementation" not in pinned


def test_shorter_rows_do_not_change_what_computes_attention_on_a_processor() -> None:
    """Up to 512 tokens the plan would choose the one that keeps a matrix of length x length."""
    made = settled("cpu", "lora={}", "prompt.sequence_len=1024")
    tried = fit.Tried((), Resolved(made.recipe, made.values, made.sources), savings.shorter(made.recipe)[:1], None)
    assert [each.pointer for each in fit._changes(made, tried)] == ["prompt.sequence_len", "model.attn_implementation"]
    card = settled("gpu", "lora={}", "prompt.sequence_len=1024")
    assert [each.pointer for each in fit._changes(card, tried)] == ["prompt.sequence_len"]


def test_what_is_refused_is_not_proposed() -> None:
    values = settled("tpu:v3-8", "lora={}").values
    assert fit._with(values, {"training.micro_batch_size": 4}) is not None
    assert fit._with(values, {"training.micro_batch_size": 0}) is None
    assert fit._with(values, {"quantization.load": "nf4"}) is None
    search, start = fit._Search(HERE, 0), found_start("tpu:v3-8", "lora={}")
    refused = search.after(start, savings.Saving({"quantization.load": "nf4"}, ""))
    assert refused.verdict is None
    assert search.after(refused, savings.Saving({"training.micro_batch_size": 4}, "")).verdict is None


def found_start(hardware: str, *changes: str) -> fit.Tried:
    made = settled(hardware, *changes)
    return fit.Tried((), Resolved(made.recipe, made.values, made.sources), (), verdict(made.recipe, HERE))


CARDS = ("rtx3060-12gb", "l4-24gb", "a100-40gb", "h100-80gb")
LORA = st.sampled_from(["null", "{}", "{r: 64, dropout: 0.1}", "{target_modules: attention}"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hardware=st.one_of(
        st.builds(lambda number, card: f"gpu:{number}x{card}", st.sampled_from([1, 2, 8]), st.sampled_from(CARDS)),
        st.sampled_from(["cpu", "cpu:2", "tpu:v3-8", "tpu:v5e-8"]),
    ),
    model=st.sampled_from(["meta-llama/Llama-3.2-1B", "meta-llama/Meta-Llama-3-8B", MIXTRAL[0].partition("=")[2]]),
    lora=LORA,
    micro=st.integers(1, 12),
    length=st.sampled_from([512, 1024, 4096]),
    effective=st.booleans(),
    checkpointing=st.booleans(),
)
def test_what_is_typed_gives_what_was_promised(
    hardware: str, model: str, lora: str, micro: int, length: int, effective: bool, checkpointing: bool
) -> None:
    """On the recipe as written: valid, no rule broken, as many rows a step, and of the size that was said."""
    changes = [f"model.base_model={model}", f"lora={lora}", f"prompt.sequence_len={length}"]
    changes += [f"training.micro_batch_size={micro}", f"training.gradient_checkpointing={str(checkpointing).lower()}"]
    if effective:
        changes.append(f"training.effective_batch_size={micro * 16}")
    before = read(hardware, *changes)
    if any(each.severity == "error" for each in rules.check(resolve(before).recipe, before, running=False)):
        return
    made = found(hardware, *changes)
    after = overrides.apply(before, fit.assignments(made.changes))
    assert not [each for each in validate.check(after) if each.severity == "error"]
    assert not [each for each in rules.check(resolve(after).recipe, after, running=False) if each.severity == "error"]
    again = plan.settle(resolve(after), HERE).recipe
    assert verdict(again, HERE) == made.after
    assert plan.batch(again)["effective"] == plan.batch(plan.settle(resolve(before), HERE).recipe)["effective"]
    assert made.after.estimate.total <= made.before.estimate.total
    assert not made.changes or made.before.ends[1] > made.limit


def test_every_way_is_a_step_down_or_nothing() -> None:
    """Each of the table's ways, alone, on a recipe that it is for."""
    start = settled("gpu:8xl4-24gb", "lora={}", "model.attn_implementation=eager", "model.kernels=torch")
    for way in (*savings.WAYS, savings.adapters):
        for saving in way(start.recipe):
            changed = fit._with(start.values, saving.sets)
            assert changed is not None, saving
            smaller, larger = verdict(changed.recipe, HERE), verdict(start.recipe, HERE)
            assert smaller is not None
            assert larger is not None
            assert smaller.estimate.total <= larger.estimate.total, saving
            assert saving.costs


def test_the_first_of_each_way_where_nothing_can_be_estimated() -> None:
    made = fit.listed(settled("gpu:2xl4-24gb", "model.base_model=nobody/knows", "model.attn_implementation=eager"))
    named = [change.pointer for change in made]
    assert named[:3] == ["model.attn_implementation", "training.gradient_checkpointing", "training.micro_batch_size"]
    assert "hardware.zero_stage" in named
    assert "optimizer.name" in named


@pytest.mark.parametrize(
    ("hardware", "changes", "way", "steps"),
    [
        ("gpu", ("model.kernels=liger",), savings.fused, 0),
        ("cpu", (), savings.fused, 0),
        ("gpu", (), savings.fused, 1),
        ("gpu", ("model.base_model=/no/such/folder",), savings.fused, 0),
        ("tpu:v3-8", ("model.attn_implementation=eager",), savings.attention, 0),
        ("gpu", ("training.gradient_checkpointing=true",), savings.checkpointing, 0),
        ("gpu", ("training.micro_batch_size=6",), savings.rows, 3),
        ("gpu", ("training.micro_batch_size=1",), savings.rows, 0),
        ("gpu:2", ("hardware.zero_stage=null",), savings.sharding, 2),
        ("gpu:2", ("hardware.zero_stage=2",), savings.sharding, 1),
        ("gpu:1", (), savings.sharding, 0),
        ("cpu:2", (), savings.sharding, 2),
        ("tpu:v3-8", (), savings.sharding, 0),
        ("gpu", ("optimizer.name=adafactor",), savings.eight_bit, 0),
        ("cpu", (), savings.eight_bit, 0),
        ("gpu", ("optimizer.name=lion",), savings.eight_bit, 1),
        ("gpu", (), savings.four_bit, 0),
        ("gpu", ("lora={}", "quantization.load=int8"), savings.four_bit, 1),
        ("gpu", ("lora={}", "quantization.load=nf4"), savings.four_bit, 0),
        ("tpu:v3-8", ("lora={}",), savings.four_bit, 0),
        ("gpu", (), savings.offloading, 3),
        ("gpu", ("hardware.zero_stage=3", "hardware.offload.optimizer=cpu"), savings.offloading, 1),
        ("gpu", ("hardware.zero_stage=3", "hardware.offload={optimizer: cpu, parameters: cpu}"), savings.offloading, 0),
        ("cpu", (), savings.offloading, 0),
        ("gpu", ("prompt.sequence_len=600",), savings.shorter, 2),
        ("gpu", ("prompt.sequence_len=200",), savings.shorter, 0),
        ("gpu", (), savings.adapters, 1),
        ("gpu", ("lora={}",), savings.adapters, 0),
    ],
)
def test_steps_of_a_way(hardware: str, changes: tuple[str, ...], way: savings.Way, steps: int) -> None:
    recipe = resolve(read(hardware, *changes)).recipe
    assert len(way(recipe)) == steps
    if way is savings.sharding and hardware != "tpu:v3-8":
        unsettled = resolve(read("gpu:2", "hardware.zero_stage=auto")).recipe
        assert len(way(unsettled)) == 2


def test_what_set_takes() -> None:
    values = [("a.b", True), ("c", None), ("d", 1), ("e", "nf4"), ("lora", {"r": 16, "alpha": 32})]
    made = fit.assignments([Changed(name, None, value, "") for name, value in values])
    assert made == ["a.b=true", "c=null", "d=1", "e=nf4", "lora={r: 16, alpha: 32}"]
    assert shlex.split(" ".join(map(shlex.quote, made))) == made


def test_it_is_found_at_once() -> None:
    """Seconds of processor time: 0.4 here for the longest search there is."""
    import time

    start = settled("gpu:1xt4-16gb", "hardware.precision=fp16", "model.dtype=float16")
    begin = time.process_time()
    fit.find(start, HERE)
    assert time.process_time() - begin < 4


def test_paths_stay_where_they_are(tmp_path: Path) -> None:
    made = settled("gpu:1xl4-24gb", f"datasets.0.path={tmp_path}/rows.jsonl", "artifacts.dir=models/one")
    changed = fit._with(made.values, {"training.micro_batch_size": 1})
    assert changed is not None
    assert changed.values["datasets"] == made.values["datasets"]
    assert changed.values["artifacts"] == made.values["artifacts"]
