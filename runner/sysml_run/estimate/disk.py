"""The room that a run takes: on disk by what takes it, and in the machine's memory by stage."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

from sysml_run import caches, counts, crossval, exports, slices, teachers
from sysml_run.errors import UsageError
from sysml_run.modelref import locate
from sysml_run.recipe import Gguf, HardwareCpu, HardwareTpu, Recipe

WRITTEN: Mapping[str, tuple[str, ...]] = {  # by stage
    "train": ("checkpoints", "model"),
    "merge": ("merged",),
    "quantize": ("quantized", "scratch"),
    "package": ("package",),
}
STORED = 2  # bytes of a number in what the hub has of nearly every model


@dataclass(frozen=True)
class Disk:
    """Bytes; `download` goes to the hub's cache and `published` to artifacts.dir, the rest to the run's folder.

    `scratch` is for reading GGUF files back without llama-cpp-python. Where a file system lets files share blocks the
    package and what is published take less.
    """

    download: int
    checkpoints: int
    model: int
    merged: int
    quantized: int
    scratch: int
    package: int
    published: int

    @property
    def run(self) -> int:
        """What the run's folder grows to."""
        parts = (self.checkpoints, self.model, self.merged, self.quantized, self.scratch, self.package)
        return sum(parts)


def needed(recipe: Recipe) -> Disk | None:
    """Of a settled recipe; None where the model's size is not known."""
    try:
        found = counts.parameters(recipe)
    except (UsageError, OSError):  # said where the model is looked at
        return None
    if found is None:
        return None
    whole = found.total * counts.DTYPES[recipe.model.dtype]
    wanted = recipe.quantization.export
    copies = sum(int(found.total * exports.bits(export) / 8) for export in wanted)
    ggufs = any(isinstance(export, Gguf) for export in wanted)
    packed = whole + copies + (found.adapter_bytes or 0)
    room = Disk(
        download=_download(recipe, found.total) + _download_of_teacher(recipe),
        checkpoints=_checkpoints(recipe) * _checkpoint(recipe),
        model=whole if found.adapter_bytes is None else found.adapter_bytes,
        merged=0 if recipe.lora is None else whole,
        quantized=copies,
        scratch=4 * found.total if ggufs and find_spec("llama_cpp") is None else 0,
        package=packed,
        published=0 if recipe.artifacts.dir is None else packed,
    )
    measured = recipe.evaluation.cross_validation is not None  # and nothing is made of the model
    return replace(room, merged=0, quantized=0, scratch=0, package=0, published=0) if measured else room


def memory(recipe: Recipe) -> dict[str, int]:
    """Bytes of the machine's memory that stages after training take at least: the whole model in fp32."""
    try:
        found = counts.parameters(recipe)
    except (UsageError, OSError):
        return {}
    stages = [*(["merge"] if recipe.lora else []), *(["quantize"] if recipe.quantization.export else [])]
    return {} if found is None or recipe.evaluation.cross_validation else dict.fromkeys(stages, 4 * found.total)


def teacher(recipe: Recipe) -> int | None:
    """Bytes of its weights, as they are loaded; None without a teacher, and where its sizes are not known."""
    try:
        found = counts.parameters(teachers.as_base(recipe)) if teachers.wanted(recipe) else None
    except (UsageError, OSError):
        return None
    return None if found is None else found.total * counts.DTYPES[recipe.model.dtype]


@dataclass(frozen=True)
class Free:
    """Bytes that can still be written: where runs are kept, in the hub's cache (None where that is the same disk), and
    of the machine's memory. `beside`: what is published lies on the disk of the runs.
    """

    runs: int
    hub: int | None
    memory: int
    beside: bool


Short = Iterator[tuple[str, str]]  # what does not suffice, and what helps


def short(recipe: Recipe, stages: Collection[str], free: Free, host: int, *, started: bool) -> Short:
    """For these stages of a settled recipe, of which training offloads `host` bytes to the machine's memory.

    A run that was `started` has its weights already, or some of them.
    """
    found = needed(recipe)
    if found is not None:
        yield from _disk(recipe, found, stages, free, started=started)
    if "train" in stages and host > free.memory:
        message = f"what is offloaded takes {gb(host)} of memory, this machine has {gb(free.memory)}"
        yield message, "take more machines, or a fast disk: --set hardware.offload.optimizer=nvme, parameters likewise"
    for stage, size in memory(recipe).items():
        if stage in stages and size > free.memory:
            message = f"{stage} takes {gb(size)} of memory, this machine has {gb(free.memory)}"
            yield message, f"leave it to a larger machine: there --only {stage} --resume RUN, here --until evaluate"


def _disk(recipe: Recipe, found: Disk, stages: Collection[str], free: Free, *, started: bool) -> Short:
    parts = {name: crossval.runs(recipe) * size for name, size in _wanted(found, stages, started=started).items()}
    if free.beside and "package" in stages:
        parts["published"] = found.published
    fetched = found.download if "train" in stages and not started else 0
    if free.hub is None:
        parts["download"] = fetched
    elif fetched > free.hub:
        message = f"the model takes {gb(found.download)} in the hub's cache, {gb(free.hub)} are free"
        yield message, "make room, or export HF_HUB_CACHE=DIR on another disk"
    if sum(parts.values()) > free.runs:
        each = ", ".join(f"{name} {gb(size)}" for name, size in parts.items() if size)
        message = f"the run takes {gb(sum(parts.values()))} on disk ({each}), {gb(free.runs)} are free"
        yield message, _mend(recipe, parts)


def _wanted(found: Disk, stages: Collection[str], *, started: bool) -> dict[str, int]:
    """Bytes by what takes them; the package has the copies a second time."""
    if started:
        return {"quantized": 2 * found.quantized, "scratch": found.scratch} if "quantize" in stages else {}
    written = [name for stage, names in WRITTEN.items() if stage in stages for name in names]
    return {name: int(getattr(found, name)) for name in written}


def _mend(recipe: Recipe, parts: Mapping[str, int]) -> str:
    most = max(parts, key=lambda name: parts[name])
    fewer = most == "checkpoints" and recipe.training.keep_checkpoints > 1
    words = "make room, or put runs on another disk with --runs DIR"
    return f"{words}, or keep fewer: --set training.keep_checkpoints=1" if fewer else words


def _download(recipe: Recipe, total: int) -> int:
    """Of the base model, where it is not at hand."""
    ref = locate(recipe.model.base_model)
    folder = caches.snapshot(ref.where, recipe.model.revision) if ref.kind == "hub" else None
    at_hand = ref.kind != "hub" or (folder is not None and any(folder.glob("*.safetensors")))
    return 0 if at_hand else STORED * total


def _download_of_teacher(recipe: Recipe) -> int:
    if not teachers.wanted(recipe):
        return 0
    size, there = teacher(recipe), teachers.as_base(recipe)
    return 0 if size is None else _download(there, size // counts.DTYPES[recipe.model.dtype])


def _checkpoints(recipe: Recipe) -> int:
    """How many there are at one time: one is written before the oldest goes, and the best stays beside the last."""
    if recipe.model.trained is not None:
        return 0
    kept = recipe.training.keep_checkpoints
    return kept + 1 + (kept == 1 and recipe.evaluation.best is not None)


def _checkpoint(recipe: Recipe) -> int:
    """One: what is trained, as it is loaded again, and the optimizer's whole state; DeepSpeed adds its own weights."""
    hardware, shares = recipe.hardware, 1
    if isinstance(hardware, HardwareTpu):
        shares = slices.find(hardware.topology).devices
    else:
        kept = replace(hardware.offload, optimizer="none", parameters="none")
        alone = replace(hardware, devices=1, offload=kept)
        recipe = replace(recipe, hardware=alone if isinstance(alone, HardwareCpu) else replace(alone, nodes=1))
    state = counts.state_bytes(recipe)
    assert state is not None
    copies = 1 if getattr(hardware, "zero_stage", None) is None else 2
    return shares * (copies * state["gradients"] + state["optimizer"])


def gb(size: int) -> str:
    """Decimal gigabytes."""
    return f"{size / 1e9:.1f} GB"
