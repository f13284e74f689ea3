"""What this machine has for training and what it lacks, as data; imports no training library, opens no connection."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from . import __version__, caches, counts, machine, needs, resources
from .errors import UsageError
from .recipe import HardwareCpu, HardwareGpu, HardwareTpu, Recipe
from .resolve import exists

State = Literal["ok", "missing", "warning"]

GB = 1e9
LITTLE_DISK = 5e9  # bytes; less rarely holds the caches and outputs of any run
PATIENCE = 10  # seconds for nvidia-smi
NVIDIA = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
ON_CPU = "add --hardware cpu to train on the processor"
WITHOUT_TPU = f"{ON_CPU}, or export PJRT_DEVICE=CPU CPU_NUM_DEVICES=8 to have XLA do it as on a TPU"


@dataclass(frozen=True)
class Check:
    """One thing looked at; `missing` is what a run needs, `mend` the command or words that help."""

    group: str
    name: str
    state: State
    found: str
    mend: str | None = None


def checks(recipe: Recipe | None, root: Path = machine.ROOT) -> list[Check]:
    """Everything that can be seen from here; with a recipe, missing is what that recipe needs.

    `root` holds `proc`, `sys` and `dev`.
    """
    return [*_versions(), *_machine(recipe, root), *_accelerators(recipe, root), *_libraries(recipe), *_disk(), *_hub()]


def lacking(recipe: Recipe) -> list[Check]:
    """What a recipe for cards or a TPU does not find here: those, or a torch that sees them."""
    if isinstance(recipe.hardware, HardwareCpu):
        return []
    seen = (*_accelerators(recipe, machine.ROOT), _library(needs.look("torch", needs.extra(recipe)), recipe))
    return [check for check in seen if check.state == "missing"]


def free(folder: Path) -> int:
    """Bytes that can still be written where `folder` is or will be."""
    return shutil.disk_usage(_there(folder)).free


def same_disk(one: Path, other: Path) -> bool:
    """Whether what is written to both takes the same room."""
    return _there(one).stat().st_dev == _there(other).stat().st_dev


def _versions() -> Iterator[Check]:
    yield Check("sysml-run", "sysml-run", "ok", f"{__version__}, {resources.PACKAGE}")
    yield Check("sysml-run", "Python", "ok", f"{platform.python_version()}, {sys.executable}")


def _machine(recipe: Recipe | None, root: Path) -> Iterator[Check]:
    here = machine.look(root)
    yield Check("machine", "processor", "ok", f"{here.processor}, {here.cores} cores for this process")
    yield Check("machine", "bf16", "ok", f"{'yes' if here.bf16 else 'no'}: {here.bf16_reason}")
    needed = _state_bytes(recipe, here.bf16)
    found = f"{here.memory / GB:.1f} GB"
    if needed is None:
        yield Check("machine", "memory", "ok", found)
        return
    said = f"{found}; weights, gradients and optimizer state take {needed / GB:.1f} GB of it, activations more"
    short = needed > here.memory
    yield Check("machine", "memory", "missing" if short else "ok", said, "train adapters (lora)" if short else None)


def _state_bytes(recipe: Recipe | None, bf16: bool) -> int | None:
    """Bytes of this machine's memory that training on its processor takes at least, where that is known."""
    hardware = None if recipe is None else recipe.hardware
    if recipe is None or not isinstance(hardware, HardwareCpu):
        return None
    if hardware.precision == "auto":
        recipe = replace(recipe, hardware=replace(hardware, precision="bf16" if bf16 else "fp32"))
    try:
        state = counts.state_bytes(recipe)
    except UsageError:  # said where the model is looked at
        return None
    return None if state is None else sum(state.values()) * hardware.devices


def _accelerators(recipe: Recipe | None, root: Path) -> Iterator[Check]:
    hardware = None if recipe is None else recipe.hardware
    if hardware is None or isinstance(hardware, HardwareGpu):
        yield _gpus(hardware.devices if hardware else 0, root)
    if hardware is None or isinstance(hardware, HardwareTpu):
        yield _tpu(hardware is not None, root)


def _gpus(wanted: int, root: Path) -> Check:
    found, mend = gpus()
    if not found and (root / "dev/kfd").exists():
        return Check("accelerators", "GPU", "ok", "an AMD card (/dev/kfd); how many is not looked at")
    names = ", ".join(found) or "none"
    if mend is not None:
        return Check("accelerators", "GPU", "missing" if wanted else "warning", mend[0], mend[1])
    if len(found) < wanted:
        return Check("accelerators", "GPU", "missing", f"{names}; the recipe wants {wanted}", ON_CPU)
    return Check("accelerators", "GPU", "ok", names)


def gpus() -> tuple[list[str], tuple[str, str] | None]:
    """Each NVIDIA card with memory and driver; or what is wrong with the driver, and what to look at."""
    if shutil.which(NVIDIA[0]) is None:
        return [], None
    try:
        done = subprocess.run(NVIDIA, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return [], (f"nvidia-smi does not answer within {PATIENCE} seconds", "restart the machine or its driver")
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().partition("\n")[0]
        return [], (f"nvidia-smi fails: {said}", "install or reload NVIDIA's driver, until nvidia-smi lists the cards")
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [f"{row[0]} ({', driver '.join(row[1:])})" for row in rows], None


def _tpu(wanted: bool, root: Path) -> Check:
    """A TPU VM has one /dev/accel* or /dev/vfio/* for each chip (cloud.google.com/tpu/docs)."""
    if virtual := machine.virtual():
        said = f"none is asked for: PJRT_DEVICE=CPU makes {virtual} virtual devices of the processor"
        return Check("accelerators", "TPU", "warning", said, "unset PJRT_DEVICE on a TPU VM")
    found = [*root.glob("dev/accel*"), *(path for path in root.glob("dev/vfio/*") if path.name.isdigit())]
    names = ", ".join(sorted(f"/{path.relative_to(root)}" for path in found)) or "none"
    if wanted and not found:
        return Check("accelerators", "TPU", "missing", names, WITHOUT_TPU)
    if found and not wanted and needs.look("torch_xla").version is None:
        return Check("accelerators", "TPU", "warning", f"{names}; torch_xla is not installed", needs.TPU_EXTRA)
    return Check("accelerators", "TPU", "ok", names)


def _libraries(recipe: Recipe | None) -> Iterator[Check]:
    extra = needs.extra(recipe) if recipe else "train"
    for name in needs.libraries(recipe) if recipe else needs.pins() or needs.TRAINING:
        yield _library(needs.look(name, extra), recipe)
    if extra == "train":
        yield from _in_the_way()


def _in_the_way() -> Iterator[Check]:
    """accelerate and transformers compute on XLA wherever torch_xla can be imported."""
    found = needs.look("torch_xla").version
    if found is not None:
        said = f"{found} is installed: every other program of this Python trains on XLA; sysml-run keeps it off"
        yield Check("libraries", "torch_xla", "warning", said, "export USE_TORCH_XLA=0, or pip uninstall torch_xla")


def _library(library: needs.Library, recipe: Recipe | None) -> Check:
    wanted = f"; wanted: {library.wanted.removeprefix('==')}" if library.wanted else ""
    if library.version is None:
        return Check("libraries", library.name, "missing", f"not installed{wanted}", library.install)
    if not needs.fits(library.version, library.wanted):
        if library.name == "torch" and recipe is not None and isinstance(recipe.hardware, HardwareTpu):
            found = f"{library.version}{wanted}: torch_xla 2.9 loads with no other"
            return Check("libraries", "torch", "missing", found, needs.TPU_EXTRA)
        return Check("libraries", library.name, "warning", f"{library.version}{wanted}", library.install)
    gpu = recipe is not None and isinstance(recipe.hardware, HardwareGpu)
    if library.name == "torch" and library.version.endswith("+cpu") and (gpu or gpus()[0]):
        mend = f"pip install --force-reinstall torch=={library.version.removesuffix('+cpu')}"
        return Check("libraries", "torch", "missing" if gpu else "warning", f"{library.version} sees no GPU", mend)
    return Check("libraries", library.name, "ok", library.version)


def _disk() -> Iterator[Check]:
    yield _space("runs", Path("runs"), "sysml-run --runs DIR keeps runs elsewhere")
    yield _space("cache", caches.cache_dir(), "export XDG_CACHE_HOME=DIR keeps it elsewhere")
    yield _space("hub cache", caches.hub_cache(), "export HF_HUB_CACHE=DIR keeps it elsewhere")


def _space(name: str, folder: Path, mend: str) -> Check:
    """Free space, found by writing a file that has no name."""
    try:
        with tempfile.TemporaryFile(dir=_there(folder)):
            left = free(folder)
    except OSError as error:
        return Check("disk", name, "missing", f"{folder} cannot be written: {error.strerror}", mend)
    found = f"{left / GB:.1f} GB free, {folder.absolute()}"
    return Check("disk", name, "warning" if left < LITTLE_DISK else "ok", found, mend if left < LITTLE_DISK else None)


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if exists(str(path)))


def _hub() -> Iterator[Check]:
    switch, source = caches.offline(), caches.token_source()
    yield Check("hub", "network", "ok", f"off: {switch} is set" if switch else "on")
    yield Check("hub", "token", "ok", f"from {source}" if source else "none; public models need none")
