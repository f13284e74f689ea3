"""What a run trains on: precision, DeepSpeed's and FSDP's files, trackers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .ledger import Ledger
from .paths import Folders
from .values import off, truth, words

FORMATS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
STAGE = re.compile(r"(?:zero|z|stage)[-_]?(?P<stage>[0-3])", re.IGNORECASE)
STRATEGY = tuple(  # how FSDP shards, under the names it has had
    f"fsdp_config.{name}"
    for name in (
        "fsdp_sharding_strategy",
        "sharding_strategy",
        "fsdp_reshard_after_forward",
        "reshard_after_forward",
    )
)
STRATEGIES: Mapping[str, int | None] = {  # the ZeRO stage that shards the same; None keeps whole copies
    **dict.fromkeys(("full_shard", "hybrid_shard", "true", "1", "4"), 3),
    **dict.fromkeys(("shard_grad_op", "hybrid_shard_zero2", "false", "2", "5"), 2),
    **dict.fromkeys(("no_shard", "3"), None),
}
SHARDED: Mapping[int | None, str] = {
    3: "parameters, gradients and optimizer state are sharded",
    2: "gradients and optimizer state are sharded, parameters are whole",
    None: "a whole copy on each GPU",
}


def gpus(ledger: Ledger) -> None:
    """A configuration says nothing of how many cards there are."""
    ledger.make("hardware.accelerator", "gpu", f"{ledger.tool} trains on GPUs")
    if ledger.entries["hardware", "accelerator"].value == "gpu":
        ledger.make("hardware.devices", 1, f"{ledger.tool} leaves it to the launcher: write how many GPUs there are")
        ledger.look.append("hardware.devices: the number of GPUs is not in the configuration; 1 is written")


def precision(ledger: Ledger, bf16: tuple[str, ...], fp16: tuple[str, ...], default: str) -> None:
    """The first format that is switched on; `default` where no key says anything."""
    said = [name for name in (*bf16, *fp16) if ledger.get(name) is not None]
    on = [name for name in said if truth(ledger.get(name)) or ledger.get(name) in ("auto", "full")]
    chosen = default if not said else "fp32" if not on else "bf16" if on[0] in bf16 else "fp16"
    if said:
        ledger.carry("hardware.precision", chosen, *said)
    else:
        ledger.make("hardware.precision", chosen, f"{ledger.tool}'s default")
    ledger.make("model.dtype", FORMATS[chosen], "follows from the precision")


def tf32(ledger: Ledger) -> None:
    if ledger.get("tf32") is not None:
        ledger.carry("hardware.tf32", ledger.get("tf32") == "auto" or ledger.get("tf32"), "tf32")


def sharding(ledger: Ledger, folders: Folders) -> None:
    """DeepSpeed's file or section, or FSDP, as a ZeRO stage; neither means whole copies on each card."""
    deepspeed, fsdp = ledger.get("deepspeed"), ledger.get("fsdp") or ledger.get("fsdp_config")
    if isinstance(deepspeed, dict):
        _section(ledger, deepspeed)
    elif isinstance(deepspeed, str):
        _file(ledger, deepspeed, folders)
    elif fsdp:
        _fsdp(ledger)
    else:
        ledger.make("hardware.zero_stage", None, f"{ledger.tool} without deepspeed or fsdp: a whole copy on each GPU")


def _section(ledger: Ledger, values: Mapping[str, Any]) -> None:
    zero = "deepspeed.zero_optimization"
    ledger.same("hardware.zero_stage", f"{zero}.stage")
    for ours, theirs in (("optimizer", "offload_optimizer"), ("parameters", "offload_param")):
        ledger.same(f"hardware.offload.{ours}", f"{zero}.{theirs}.device")


def _file(ledger: Ledger, name: str, folders: Folders) -> None:
    """The file itself where it is at hand, else what its name says."""
    found = folders.find(name)
    values = _read(found) if found is not None else _by_name(name)
    if values is None:
        ledger.leave(
            "deepspeed", "neither the file is here nor does its name tell the stage: write hardware.zero_stage"
        )
        ledger.look.append(f"hardware.zero_stage: {name} could not be read")
        return
    by = "" if found is not None else "told by its name"
    ledger.carry("hardware.zero_stage", values["stage"], "deepspeed", note=by)
    for ours in ("optimizer", "parameters"):
        if values[ours] != "none":
            ledger.carry(f"hardware.offload.{ours}", values[ours], "deepspeed", note=by)


def _read(path: Path) -> dict[str, Any] | None:
    """Stage and offload of one of DeepSpeed's files; None where it is not one."""
    try:
        zero = json.loads(path.read_text(encoding="utf-8"))["zero_optimization"]
        places = [zero.get(name, {}).get("device", "none") for name in ("offload_optimizer", "offload_param")]
        return {"stage": zero["stage"], "optimizer": places[0], "parameters": places[1]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _by_name(name: str) -> dict[str, Any] | None:
    """axolotl and LLaMA-Factory call their files zero3_bf16_cpuoffload_params.json, ds_z3_offload_config.json."""
    found = STAGE.search(Path(name).name)
    if found is None:
        return None
    stage, offload = int(found["stage"]), "offload" in name
    parameters = offload and stage == 3
    optimizer = offload and not name.removesuffix(".json").endswith("params")
    return {"stage": stage, "optimizer": "cpu" if optimizer else "none", "parameters": "cpu" if parameters else "none"}


def _fsdp(ledger: Ledger) -> None:
    """How it shards is a key of fsdp_config, or one of the words of fsdp."""
    flags = _flags(ledger)
    said = [(name, str(ledger.get(name)).lower()) for name in STRATEGY if ledger.get(name) is not None]
    said += [(name, word) for name, word in flags if word in STRATEGIES and not word.isdigit()]
    known = [(name, STRATEGIES[word]) for name, word in said if word in STRATEGIES]
    if known:
        names = [name for name, stage in known if stage == known[0][1]]
        ledger.carry("hardware.zero_stage", known[0][1], *names, note=SHARDED[known[0][1]])
    elif said:
        ledger.look.append(f"hardware.zero_stage: 3 stands for FSDP's {said[0][1]}")
    ledger.make("hardware.zero_stage", 3, f"{ledger.tool}: fsdp; {SHARDED[3]}")
    if any(word.startswith("hybrid") for _, word in said):
        ledger.look.append("hardware.zero_stage: FSDP shards within each machine; ZeRO shards over all of them")
    keys = [
        name for name in ("fsdp_config.offload_params", "fsdp_config.fsdp_offload_params") if not off(ledger.get(name))
    ]
    keys += [name for name, word in flags if word == "offload"]
    if keys:
        ledger.carry("hardware.offload.parameters", "cpu", *keys)
        ledger.make("hardware.offload.optimizer", "cpu", "goes with the parameters, as in FSDP")


def _flags(ledger: Ledger) -> list[tuple[str, str]]:
    """The words of fsdp, one by one, each with the name of the value it is in."""
    written = ledger.get("fsdp")
    if isinstance(written, list):
        return [(f"fsdp.{at}", str(one).lower()) for at, one in enumerate(written)]
    return [("fsdp", one) for one in str(written or "").lower().split()]


def tracking(ledger: Ledger, trackers: Mapping[str, tuple[str, ...]]) -> None:
    """`trackers` names the keys of which any one, switched on or filled in, asks for a tracker."""
    asked = {name: [key for key in keys if _asks(ledger.get(key))] for name, keys in trackers.items()}
    names = [name for name, keys in asked.items() if keys]
    if names:
        ledger.carry("tracking", names, *(key for keys in asked.values() for key in keys))


def reporting(ledger: Ledger, key: str = "report_to") -> None:
    """transformers' list of trackers; `none` and `all` name nobody."""
    value = ledger.get(key)
    said = {f"{key}.{at}": one for at, one in enumerate(value)} if isinstance(value, list) else {key: value}
    known = {name: one for name, one in said.items() if one in words(("tracking",))}
    if known:
        ledger.carry("tracking", list(known.values()), *known)
    if list(said.values()) == ["none"]:
        ledger.leave(key, "none, as without tracking")


def _asks(value: Any) -> bool:
    return value is not None and truth(value) is not False
