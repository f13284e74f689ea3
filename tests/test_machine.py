"""What hardware is here, read from a folder that stands for the machine's / and from this machine itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sysml_run import machine


@pytest.fixture
def root(tmp_path: Path):
    def make(**files: str) -> Path:
        names = {
            "cpuinfo": "proc/cpuinfo",
            "quota": "sys/fs/cgroup/cpu.max",
            "limit": "sys/fs/cgroup/memory.max",
        }
        for name, text in files.items():
            file = tmp_path / names[name]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("cpuinfo", "bf16", "reason"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu avx512f avx512_bf16\n", True, "this processor has avx512_bf16"),
        ("model name\t: Xeon\nflags\t\t: fpu amx_bf16\n", True, "this processor has amx_bf16"),
        ("CPU part\t: 0xd40\nFeatures\t: fp asimd bf16\n", True, "this processor has bf16"),
        ("flags\t\t: fpu avx2 not_bf16_at_all\n", False, "this processor has no bf16 instructions"),
        ("", False, "this processor has no bf16 instructions"),
    ],
)
def test_bf16_and_why(root, cpuinfo: str, bf16: bool, reason: str) -> None:
    seen = machine.look(root(cpuinfo=cpuinfo))
    assert (seen.bf16, seen.bf16_reason) == (bf16, reason)


def test_the_processor_has_a_name_where_there_is_no_proc(root) -> None:
    assert machine.look(root(cpuinfo="model name\t: AMD EPYC: the 2nd\n")).processor == "AMD EPYC: the 2nd"
    assert machine.look(Path("/nowhere")).processor


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("100000 100000\n", 1), ("max 100000", None)])
def test_cores_are_what_the_control_group_gives(root, quota: str, cores: int | None) -> None:
    whole = len(os.sched_getaffinity(0))
    assert machine.cores(root(quota=quota)) == (cores or whole)
    assert machine.cores(Path("/nowhere")) == whole
    assert machine.cores(root(quota="100000000 1000")) == whole


def test_memory_is_the_smaller_of_machine_and_control_group(root) -> None:
    whole = machine.memory(Path("/nowhere"))
    assert whole > 2**28
    assert machine.memory(root(limit="1000000\n")) == 1_000_000
    assert machine.memory(root(limit="max\n")) == whole
    assert machine.memory(root(limit=str(2**62))) == whole


def test_this_machine() -> None:
    seen = machine.look()
    assert seen.cores >= 1
    assert seen.memory > 2**28
    assert seen.python == sys.executable
    assert seen.accelerate == str(Path(sys.executable).parent / "accelerate")


@pytest.mark.parametrize(
    ("device", "number", "found"),
    [
        (None, None, 0),
        ("TPU", "8", 0),
        ("CPU", "8", 8),
        ("cpu", None, 1),
        ("CPU", "many", 1),
        ("CPU", "0", 1),
        ("CPU", "²", 1),
        ("CPU", "9" * 5000, 1),
    ],
)
def test_virtual_devices(device: str | None, number: str | None, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PJRT_DEVICE", device), ("CPU_NUM_DEVICES", number)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert machine.virtual() == machine.look().virtual == found
