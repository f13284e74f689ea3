"""What hardware is here; each answer with its reason."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class Machine:
    """This machine: `cores` a process may use, `memory` in bytes, whether the processor computes in bf16, and why."""

    cores: int
    memory: int
    processor: str
    bf16: bool
    bf16_reason: str
    python: str

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
    return Machine(cores(root), memory(root), processor, found is not None, reason, sys.executable)


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
