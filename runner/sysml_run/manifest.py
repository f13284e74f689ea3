"""Checksums: what a package or a run holds, and what made it.

They find damage and later edits. They are no signature: who can change a file can change the manifest too.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from . import machine
from .rundir import PARTIAL, RunDir, read_json, write_json, write_text

FORMAT = 1
NAME, SUMS = "manifest.json", "SHA256SUMS"
LIBRARIES = (
    *("torch", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "safetensors"),
    *("gguf", "bitsandbytes", "numpy", "deepspeed", "torch_xla", "sysml-run"),
)
ARTIFACTS = (
    *("recipe.yaml", "recipe.json", "plan.json", "launch", "data", "records", "metrics.jsonl", "model", "merged"),
    *("quantized", "evaluation.json", "generations.jsonl", "worst_rows.jsonl", "package", "report.html", "figures"),
)
Entries = dict[str, dict[str, Any]]


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Python and the training libraries that are installed; imports none of them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def entries(folder: Path, files: Iterable[str]) -> Entries:
    """`{name: {"sha256", "bytes"}}` of files in `folder`."""
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(files)}


def write(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Leave `manifest.json` and `SHA256SUMS` (for `sha256sum -c`) over every file of a package; gives the manifest."""
    files = entries(folder, names(folder) - {NAME, SUMS})
    made = {"format": FORMAT, "kind": "package", **facts, "files": files}
    write_json(folder / NAME, made)
    write_text(folder / SUMS, sums(files | entries(folder, [NAME])))
    return made


def write_run(rundir: RunDir) -> dict[str, Any]:
    """Leave the run's own `manifest.json` over every artifact; to be called when the last stage is done."""
    values, prepare = read_json(rundir.recipe)["values"], _record(rundir, "prepare")
    train = _record(rundir, "train")
    made = {
        "format": FORMAT,
        "kind": "run",
        "name": values["name"],
        "created": train.get("started"),
        "base_model": base(train.get("base") or values["model"]),
        "data": data(prepare),
        "recipe_sha256": sha256(rundir.recipe),
        "versions": versions(),
        "hardware": _hardware(),
        "git": _git(rundir),
        "files": entries(rundir.path, artifacts(rundir.path)),
    }
    write_json(rundir / NAME, made)
    return made


def base(facts: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """The base model's facts from the record of training, under `name` or the one the recipe has."""
    rest = {"own_name" if key == "name" else key: value for key, value in facts.items() if key != "base_model"}
    return {"name": name or facts["base_model"], **rest}


def data(prepare: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, bytes and digest of each data file, from the record of the prepare stage."""
    files = prepare.get("files", [])
    return [{"name": file["name"], "bytes": file["size"], "sha256": file["sha256"]} for file in files]


def sums(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Lines in the format of coreutils; one that starts with a backslash has backslashes and line breaks escaped."""
    lines = []
    for name, entry in sorted(files.items()):
        written = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if written == name else chr(92)}{entry['sha256']}  {written}\n")
    return "".join(lines)


def names(folder: Path, *, half_written: bool = False) -> set[str]:
    """All below `folder` that is no folder, however deep; of what an interrupted write left only if asked for."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    whole = (name for name in found if half_written or not any(part.startswith(PARTIAL) for part in name.parts))
    return {name.as_posix() for name in whole}


def artifacts(folder: Path) -> set[str]:
    """What of a run directory belongs to its result; logs, checkpoints and state do not."""
    return {name for name in names(folder) if name.split("/")[0] in ARTIFACTS}


def _record(rundir: RunDir, stage: str) -> dict[str, Any]:
    path = rundir.record(stage)
    return dict(read_json(path)) if path.is_file() else {}


def _hardware() -> dict[str, Any]:
    """The machine that wrote this; memory in bytes."""
    facts = asdict(machine.look())
    return {"system": platform.system(), **{key: facts[key] for key in ("processor", "cores", "memory", "bf16")}}


def _git(rundir: RunDir) -> dict[str, Any] | None:
    """Commit of the folder the recipe came from, and whether it is clean; None where there is no repository.

    The file the plan names counts only while it still holds the text that was run.
    """
    try:
        file = Path(json.loads((rundir / "plan.json").read_text(encoding="utf-8"))["recipe"])
        same = file.read_bytes() == (rundir / "recipe.yaml").read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    commit = _ask_git(file.parent, "rev-parse", "HEAD") if same else None
    if commit is None:
        return None
    tracked = _ask_git(file.parent, "ls-files", "--error-unmatch", "--", file.name) is not None
    return {"commit": commit, "clean": tracked and _ask_git(file.parent, "status", "--porcelain", "-uno") == ""}


def _ask_git(folder: Path, *words: str) -> str | None:
    """What git answers; None for any failure. Runs no program that the repository names."""
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "--no-optional-locks", *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
