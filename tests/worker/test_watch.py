"""Losses that are no numbers or leap, on batches as the collator makes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sysml_run.errors import StageError
from sysml_run.rundir import RunDir
from sysml_run.worker import watch as module
from sysml_run.worker.batches import Collator
from sysml_run.worker.watch import Watch, documents, names

IDS = [[1, 2, 3], [4, 5], [1, 9, 9, 9], [4, 5]]
PAD = 0


class Rows(list):
    """Rows as the prepared set has them: by number, and a column by its name."""

    def __getitem__(self, at: Any) -> Any:
        return [row[at] for row in self] if isinstance(at, str) else super().__getitem__(at)


def prepared() -> Rows:
    return Rows({"id": f"row-{at}", "input_ids": ids, "length": len(ids)} for at, ids in enumerate(IDS))


def batch(*rows: int, packed: bool = False, flat: bool = False) -> dict[str, Any]:
    """Those rows one under the other, or all in one packed row."""
    if not packed:
        return Collator(PAD)([{"input_ids": IDS[row]} for row in rows])
    tokens = [token for row in rows for token in IDS[row]]
    joined = {"input_ids": tokens, "seq_lengths": [len(IDS[row]) for row in rows]}
    short = {"input_ids": IDS[0], "seq_lengths": [len(IDS[0])]}
    return Collator(PAD, flat=flat)([joined, short])


def step(watch: Watch, number: int, *losses: float, gradient: float | None = 1.0) -> None:
    for at, loss in enumerate(losses):
        watch.saw(torch.tensor(loss), batch(at))
    watch.settle(number, None if gradient is None else torch.tensor(gradient))


def event(rundir: RunDir) -> dict[str, Any]:
    (line,) = (rundir / "events.jsonl").read_text().splitlines()
    return json.loads(line)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_the_micro_batch_whose_loss_is_no_number_is_named(rundir: RunDir, loss: float) -> None:
    watch = Watch(rundir, prepared(), None, scaled=False)
    step(watch, 1, 2.0, 1.0)
    with pytest.raises(StageError, match=r"^step 2: the loss is no number; it was computed on row-1$") as caught:
        step(watch, 2, 2.0, loss, gradient=float("nan"))
    assert "optimizer.learning_rate" in (caught.value.hint or "")
    assert event(rundir)["rows"] == ["row-1"]
    assert event(rundir)["step"] == 2


def test_gradients_that_are_no_numbers_name_the_whole_step(rundir: RunDir) -> None:
    with pytest.raises(StageError, match=r"gradients are no numbers; it was computed on row-0, row-1, row-2$"):
        step(Watch(rundir, prepared(), None, scaled=False), 1, 1.0, 1.0, 1.0, gradient=float("inf"))
    step(Watch(rundir, prepared(), None, scaled=True), 1, 1.0, gradient=float("inf"))
    step(Watch(rundir, prepared(), None, scaled=False), 1, 1.0, gradient=None)


def test_of_several_processes_one_without_a_wrong_loss_lets_the_others_speak(
    rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module.time, "sleep", slept.append)
    with pytest.raises(StageError, match="gradients"):
        step(Watch(rundir, prepared(), None, scaled=False), 1, 1.0, gradient=float("nan"))
    assert slept == [module.HEARD]


def test_a_leap_is_held_against_the_steps_before_it(rundir: RunDir) -> None:
    watch = Watch(rundir, prepared(), 3.0, scaled=False)
    step(watch, 1, 50.0)
    for number in range(2, module.FEWEST + 1):
        step(watch, number, 1.0, 1.0)
    step(watch, 11, 10.0, 10.0)  # the mean of the ten is 6.8
    with pytest.raises(StageError, match=r"the loss is 70.000, 8.8 times .*max_loss_spike: 3\).* row-0, row-1$"):
        step(watch, 12, 40.0, 30.0)
    free = Watch(rundir, prepared(), None, scaled=False)
    for number in range(20):
        step(free, number, 1.0 if number < 15 else 1e6)


def test_the_first_steps_are_held_against_nothing(rundir: RunDir) -> None:
    watch = Watch(rundir, prepared(), 1.5, scaled=False)
    for number in range(module.FEWEST):
        step(watch, number, 2.0**number)


@pytest.mark.parametrize("flat", [False, True])
def test_rows_are_found_in_every_form_of_a_batch(flat: bool) -> None:
    found = [row for row in documents(batch(2, 1, packed=True, flat=flat)) if len(row) > 1]
    assert found == [IDS[2], IDS[1], IDS[0]]
    assert [*documents(batch(0, 2))] == [IDS[0], IDS[2]]
    assert names(prepared(), found) == ["row-2", "row-1", "row-0"]


def test_of_rows_that_are_alike_the_first_is_named() -> None:
    assert names(prepared(), [[4, 5], [4, 5], [7, 7]]) == ["row-1"]


def test_a_long_list_is_cut_in_the_message_and_whole_in_the_event(rundir: RunDir) -> None:
    rows = Rows({"id": f"r{at}", "input_ids": [at, at], "length": 2} for at in range(1, 21))
    watch = Watch(rundir, rows, None, scaled=False)
    watch.saw(torch.tensor(float("nan")), Collator(PAD)([{"input_ids": [at, at]} for at in range(1, 13)]))
    with pytest.raises(StageError, match=r"r8 and 4 more$"):
        watch.settle(1, None)
    assert len(event(rundir)["rows"]) == 12


def test_rows_that_nobody_knows(rundir: RunDir) -> None:
    watch = Watch(rundir, Rows(), None, scaled=False)
    with pytest.raises(StageError, match="rows that are not known"):
        step(watch, 1, float("nan"))
