"""What makes a recipe fit, as text and as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sysml_run import fitview
from sysml_run.estimate import Estimate
from sysml_run.estimate.verdict import Verdict
from sysml_run.fit import Changed, Fit

CHANGES = (
    Changed("training.micro_batch_size", 4, 2, "as many rows a step, fewer at a time"),
    Changed("training.gradient_accumulation_steps", 1, 2, ""),
    Changed("lora", None, {"r": 16, "alpha": 32}, "another training"),
)


def verdict(total: int, available: int = 10**10) -> Verdict:
    return Verdict(Estimate(total // 2, 0, 0, total // 2, 0, 0, 0, 0.1), available)


def made(before: int, after: int, changes: Sequence[Changed]) -> Fit:
    return Fit(10**10, verdict(before), verdict(after), tuple(changes))


def test_what_makes_it_fit() -> None:
    assert (
        fitview.text(made(20 * 10**9, 8 * 10**9, CHANGES))
        == """\
does not fit: 20.0 GB (18.0 to 22.0) of 10.0 GB on each device
what makes it fit, the cheapest in speed first

changed                                 A     B
  training.micro_batch_size             4     2
      as many rows a step, fewer at a time
  training.gradient_accumulation_steps  1     2
  lora                                  none  r=16, alpha=32
      another training

then  fits: 8.0 GB (7.2 to 8.8) of 10.0 GB on each device
type  --set training.micro_batch_size=2 --set training.gradient_accumulation_steps=2 --set 'lora={r: 16, alpha: 32}'
"""
    )


def test_what_is_offloaded_has_to_go_somewhere() -> None:
    moved = replace(verdict(8 * 10**9), estimate=replace(verdict(8 * 10**9).estimate, host=96 * 10**9))
    lines = fitview.text(replace(made(20 * 10**9, 8 * 10**9, CHANGES[:1]), after=moved)).splitlines()
    assert lines[-2] == "      96.0 GB of each machine's own memory, for what is offloaded"


def test_nothing_has_to_change() -> None:
    found = fitview.text(made(8 * 10**9, 8 * 10**9, ()))
    assert found == "fits: 8.0 GB (7.2 to 8.8) of 10.0 GB on each device\nnothing has to change\n"


def test_nothing_helps() -> None:
    least = fitview.text(made(20 * 10**9, 15 * 10**9, CHANGES[:1]))
    assert "nothing makes it fit; other machines: sysml-run plan RECIPE --compare" in least
    assert "the least that was reached takes\n\nchanged" in least
    assert "then  does not fit: 15.0 GB" in least
    none = fitview.text(made(20 * 10**9, 20 * 10**9, ()))
    assert none.splitlines()[0].startswith("does not fit: 20.0 GB")
    assert len(none.splitlines()) == 2


def test_values() -> None:
    found = fitview.values(made(20 * 10**9, 8 * 10**9, CHANGES))
    assert found["enough"]
    assert found["changed"][0] == {
        "pointer": "training.micro_batch_size", "from": 4, "to": 2, "costs": "as many rows a step, fewer at a time",
    }  # fmt: skip
    assert found["changed"][1]["costs"] is None
    assert found["set"][2] == "lora={r: 16, alpha: 32}"
    assert found["memory"]["verdict"] == "fits"
    assert "stages_host_gb" not in found["memory"]
