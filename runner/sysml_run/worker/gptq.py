"""GPTQ (Frantar et al., 2022) through GPTQModel, calibrated on rows that the run trained on."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sysml_run import architecture, exports
from sysml_run.errors import StageError
from sysml_run.recipe import Gptq, Recipe
from sysml_run.rundir import PARTIAL, read_json, write_json

HEAVY = ("gptqmodel", "torchao")
SHORTEST = 10  # tokens; GPTQModel leaves shorter rows out
CONFIGS = ("config.json", "quantize_config.json")


def make(source: Path, folder: Path, export: Gptq, train: Any, recipe: Recipe) -> dict[str, Any]:
    """Write the checkpoint; gives the ids of the rows. Raises StageError."""
    picked = calibration(train, export.calibration.samples, recipe.seed)
    print(f"quantize: calibrating on {len(picked)} training rows", flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as spare, aside():
        model, version = load(source, export, recipe, spare)
        rows = [{"input_ids": row["input_ids"], "attention_mask": [1] * len(row["input_ids"])} for row in picked]
        model.quantize(rows, batch_size=1)
        model.save(str(folder))
    for path in folder.glob("quant_log*"):
        path.unlink()
    for name in CONFIGS:
        tidy(folder / name)
    name_kernel(folder / "config.json", export.group_size)
    return {"gptqmodel": version, "calibration": [row["id"] for row in picked]}


def calibration(train: Any, samples: int, seed: int) -> list[dict[str, Any]]:
    """Training rows drawn by the recipe's seed, as they were trained on. Raises StageError where all are too short."""
    long = [number for number, length in enumerate(train["length"]) if length >= SHORTEST]
    if not long:
        hint = "remove this export from quantization.export"
        raise StageError(f"no training row has {SHORTEST} tokens to calibrate on", hint)
    return [train[number] for number in sorted(random.Random(seed).sample(long, min(samples, len(long))))]


def load(source: Path, export: Gptq, recipe: Recipe, spare: str) -> tuple[Any, str]:
    """The unquantized model in GPTQModel's hands, and its version; `spare` is a folder for what it puts aside."""
    shown()
    from gptqmodel import GPTQModel, QuantizeConfig, __version__
    from gptqmodel.looper import loop_processor

    loop_processor._PROJECT_LOG_DIR = Path(spare) / "logs"  # else a folder of that name where the command was typed
    config = QuantizeConfig(
        bits=export.bits,
        group_size=export.group_size,
        desc_act=export.desc_act,
        act_group_aware=not export.desc_act,
        sym=export.sym,
        damp_percent=export.damp,
        offload_to_disk_path=spare,
    )
    device = "cuda" if recipe.hardware.accelerator == "gpu" else "cpu"
    remote = recipe.model.trust_remote_code
    return GPTQModel.load(str(source), config, device=device, trust_remote_code=remote), str(__version__)


def hide() -> None:
    """PEFT loads what could have quantized a layer before it puts an adapter beside it: seconds, in every process."""
    for name in HEAVY:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


def shown() -> None:
    """Before GPTQModel is loaded."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # it refuses a machine with two cores otherwise
    for name in HEAVY:
        if sys.modules.get(name, sys) is None:
            del sys.modules[name]


@contextmanager
def aside() -> Iterator[None]:
    """What GPTQModel and what it calls write to the screen goes to the log; its threads write when they like."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def name_kernel(path: Path, group: int) -> None:
    """Torch's own kernel for rows that are not whole groups; the quicker one that would be taken refuses them later."""
    config = read_json(path)
    if any(width % group for width in exports.widths(architecture.read(config, str(path)))):
        config["quantization_config"]["backend"] = "torch"
        write_json(path, config)


def tidy(path: Path) -> None:
    """Nothing in the checkpoint names a folder of this machine."""
    value = read_json(path)
    for holder in (value, value.get("quantization_config", {})):
        holder.get("meta", {}).pop("offload_to_disk_path", None)
    write_json(path, value)
