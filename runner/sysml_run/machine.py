"""What hardware is here; each answer with its reason."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
FASTER = ("flash_attn", "liger_kernel")
DIGITS = 6  # of a number of devices; more are a slip
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class Machine:
    """This machine: `cores` a process may use, `memory` in bytes, whether the processor computes in bf16, and why.

    `virtual` is how many devices XLA is asked to make of the processor in place of a TPU's; 0 where it is not asked to.
    `installed` are those of FASTER that are. `elsewhere`: commands are for a machine whose cores are unknown.
    """

    cores: int
    memory: int
    processor: str
    bf16: bool
    bf16_reason: str
    python: str
    virtual: int = 0
    installed: tuple[str, ...] = ()
    elsewhere: bool = False

    @property
    def accelerate(self) -> str:
        """The `accelerate` command of the Python that runs us, so that no other installation on PATH is started."""
        return str(Path(self.python).with_name("accelerate"))


def look(root: Path = ROOT) -> Machine:
    """Ask the operating system, whose `proc` and `sys` are under `root`; imports no training library."""
    info = _read(root / "proc/cpuinfo")
    flags = _field(info, "flags") or _field(info, "Features")
    found = next((flag for flag in BF16_FLAGS if flag in flags.split()), None)
    reason = f"this processor has {found}" if found else "this processor has no bf16 instructions"
    processor = _field(info, "model name") or platform.processor() or platform.machine()
    bf16 = found is not None
    return Machine(cores(root), memory(root), processor, bf16, reason, sys.executable, virtual(), installed())


def installed() -> tuple[str, ...]:
    """The libraries of faster kernels for cards that are installed; imports none of them."""
    specs = ((name, importlib.util.find_spec(name)) for name in FASTER)
    return tuple(name for name, spec in specs if spec is not None and spec.origin)  # a mere folder has no origin


def virtual() -> int:
    """Devices that PJRT_DEVICE=CPU and CPU_NUM_DEVICES, which are torch_xla's, ask for."""
    if os.environ.get("PJRT_DEVICE", "").upper() != "CPU":
        return 0
    number = os.environ.get("CPU_NUM_DEVICES", "1")
    return max(1, int(number)) if number.isdecimal() and len(number) < DIGITS else 1


def cores(root: Path = ROOT) -> int:
    """Cores this process may use: its affinity, and the control group's quota where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(root / "sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, min(allowed, int(quota) // int(period))) if quota.isdigit() else allowed


def memory(root: Path = ROOT) -> int:
    """Bytes of memory this process may use: the machine's, and the control group's limit where there is one."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(root / "sys/fs/cgroup/memory.max").strip()
    return min(whole, int(limit)) if limit.isdigit() else whole


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(info: str, name: str) -> str:
    lines = (line.partition(":") for line in info.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
