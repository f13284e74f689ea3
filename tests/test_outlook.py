"""What a plan needs, in words and in values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sysml_run import outlook
from sysml_run.estimate import Estimate
from sysml_run.estimate.disk import Disk
from sysml_run.estimate.hours import Hours
from sysml_run.estimate.verdict import Verdict
from sysml_run.outlook import Outlook

GB = 10**9
SIZE = Estimate(10 * GB, 0, GB, 4 * GB, 2 * GB, GB, 0, 0.1)
TIME = Hours(1000, 2.5e15, 3600, (1.0, 2.0), "21 to 46 % of the peak")
ROOM = Disk(GB, 2 * GB, 3 * GB, 4 * GB, 0, 0, 6 * GB, 5 * GB)
STAGES: Mapping[str, int] = {"merge": 28 * GB}
EACH = "weights 10.00  gradients 0.00  optimizer 1.00  activations 4.00  logits 2.00  overhead 1.00"
ALL = Outlook(Verdict(SIZE, 24 * GB), TIME, ROOM, STAGES)


def test_in_words() -> None:
    assert list(outlook.lines(ALL)) == [
        "  memory  fits: 18.0 GB (16.2 to 19.8) of 24.0 GB on each device, most of it weights",
        f"          {EACH} GB at the peak",
        "  time    1 h 0 min to 2 h 0 min for 3,600 steps, 1.0 s to 2.0 s a step",
        "          2.5e+15 operations for the 1,000 tokens of a step, at 21 to 46 % of the peak",
        "  disk    15.0 GB in the run's folder: checkpoints 2.0 GB, model 3.0 GB, merged 4.0 GB, package 6.0 GB",
        "          and in the hub's cache 1.0 GB, in artifacts.dir 5.0 GB",
        "  later   merge takes 28.0 GB of the machine's memory",
    ]


def test_what_is_not_known_says_why() -> None:
    assert list(outlook.lines(Outlook(None, None, None, {}))) == [f"  memory  not known: {outlook.NO_MODEL}"]
    least = Outlook(
        Verdict(replace(SIZE, host=90 * GB), None), replace(TIME, seconds=None, why="nobody knows"), None, {}
    )
    assert list(outlook.lines(least)) == [
        "  memory  18.0 GB (16.2 to 19.8) on each device, most of it weights; hardware.type does not say how much"
        " memory the card has, as l4-24gb does",
        f"          {EACH} GB at the peak",
        "          90.0 GB of each machine's own memory, for what is offloaded",
        "  time    2.5e+15 operations for the 1,000 tokens of a step; nobody knows",
    ]
    (uncounted, _) = outlook._time(replace(TIME, steps=None))
    assert uncounted == "  time    1.0 s to 2.0 s a step; how many is not known before the rows are counted"
    (_, at_home) = [*outlook._disk(ROOM)]
    assert "hub" in at_home
    assert len([*outlook._disk(replace(ROOM, download=0, published=0))]) == 1
    (both,) = [line for line in outlook.lines(replace(ALL, stages={"merge": 1, "quantize": GB})) if "later" in line]
    assert both == "  later   merge and quantize take 1.0 GB of the machine's memory"


def test_a_teacher() -> None:
    taught = replace(ALL, teacher=93 * GB)
    assert "          the teacher's weights take 93.0 GB of all devices together, before training" in outlook.lines(
        taught
    )
    assert outlook.values(taught)["memory"]["teacher_gb"] == 93.0


def test_in_values() -> None:
    found = outlook.values(ALL)
    assert found["memory"] == {
        "available_gb": 24.0,
        "per_device_gb": {
            "weights": 10.0, "gradients": 0.0, "optimizer": 1.0, "activations": 4.0, "logits": 2.0, "overhead": 1.0,
            "total": 18.0,
        },
        "host_gb": 0.0,
        "fits": True,
        "verdict": "fits",
        "band": 0.1,
        "dominates": "weights",
        "stages_host_gb": {"merge": 28.0},
        "teacher_gb": None,
    }  # fmt: skip
    assert found["time"] == {
        "tokens_per_step": 1000, "flops_per_step": 2.5e15, "flops": 9e18, "seconds_per_step": [1.0, 2.0],
        "hours": [1.0, 2.0], "why": "21 to 46 % of the peak",
    }  # fmt: skip
    assert found["disk"]["run_gb"] == 15.0
    assert found["disk"]["download_gb"] == 1.0
    assert outlook.values(Outlook(None, None, None, {})) == {"memory": None, "time": None, "disk": None}


def test_barely_is_not_yet_fitting() -> None:
    found = outlook.memory(Verdict(SIZE, 19 * GB))
    assert (found["verdict"], found["fits"]) == ("fits barely", False)
    assert outlook.memory(Verdict(SIZE, None))["fits"] is None


@pytest.mark.parametrize(("size", "words"), [(93.4e9, "93.4 GB"), (0.1e9, "0.1 GB"), (99e6, "99.0 MB"), (0, "0.0 MB")])
def test_amounts(size: float, words: str) -> None:
    assert outlook.amount(size) == words
    assert outlook.number(size, size) == words.split()[0]
