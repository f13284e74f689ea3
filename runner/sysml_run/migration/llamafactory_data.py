"""LLaMA-Factory's names of datasets -> ours, by the dataset_info.json beside the rows where it is at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import preference, splits
from .ledger import Ledger
from .paths import Folders
from .templates import field, printed

INFO = "dataset_info.json"
FROM_INFO = f"LLaMA-Factory: {INFO}"
ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
SHAREGPT = {"messages": "conversations", "role_tag": "from", "content_tag": "value"}
SHAREGPT |= {"user_tag": "human", "assistant_tag": "gpt", "system_tag": "system"}
OPENAI = {"messages": "messages", "role_tag": "role", "content_tag": "content"}
OPENAI |= {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
CHATS = {"sharegpt": SHAREGPT, "messages": OPENAI}


def carry(ledger: Ledger, folders: Folders) -> None:
    """Every name in `dataset`, in the order written."""
    written = ledger.get("dataset")
    names = written if isinstance(written, list) else str(written or "").split(",")
    folder = str(ledger.get("dataset_dir") or "data")
    info = _info(folders, folder)
    for at, name in enumerate(one for one in (str(name).strip() for name in names) if one):
        _dataset(ledger, folders, f"datasets.{at}", name, folder, info)
    if names and ("datasets", 0, "path") in ledger.entries:
        ledger.settle("datasets.0.path", "dataset", "dataset_dir")


def _info(folders: Folders, folder: str) -> Mapping[str, Any]:
    found = folders.find(f"{folder}/{INFO}")
    try:
        values = json.loads(found.read_text(encoding="utf-8")) if found is not None else {}
    except (OSError, ValueError):
        values = {}
    return values if isinstance(values, dict) else {}


def _dataset(ledger: Ledger, folders: Folders, target: str, name: str, folder: str, info: Mapping[str, Any]) -> None:
    found = info.get(name)
    if not isinstance(found, dict):
        where = f"hub:{name}" if folder == "ONLINE" else folders.local(f"{folder}/{name}.json")
        ledger.make(f"{target}.path", where, f"a guess: no {INFO} tells where {name} is")
        kind = preference.TYPE if preference.said(ledger) else "alpaca"
        ledger.make(f"{target}.type", kind, "LLaMA-Factory's default")
        ledger.look.append(f"{target}: {name} is not described by a {folder}/{INFO} here; check path and type")
    else:
        _path(ledger, folders, target, found, folder)
        _type(ledger, target, found)
        if isinstance(found.get("num_samples"), int):
            ledger.make(f"{target}.max_rows", found["num_samples"], FROM_INFO)
    if ledger.get("max_samples") is not None:
        ledger.carry(f"{target}.max_rows", ledger.get("max_samples"), "max_samples")


def _path(ledger: Ledger, folders: Folders, target: str, found: Mapping[str, Any], folder: str) -> None:
    hub, file = found.get("hf_hub_url"), found.get("file_name")
    if isinstance(hub, str):
        ledger.make(f"{target}.path", f"hub:{hub}", FROM_INFO)
        split = found.get("split")
        if isinstance(split, str) and "[" in split:
            splits.part(ledger, f"{target}.split", split)
        for ours, theirs in (("config", "subset"), ("split", "split")):
            if isinstance(found.get(theirs), str):
                ledger.make(f"{target}.{ours}", found[theirs], FROM_INFO)
    elif isinstance(file, str):
        ledger.make(f"{target}.path", folders.local(str(Path(folder, file))), FROM_INFO)
    else:
        ledger.look.append(f"{target}.path: {INFO} names neither a file nor a dataset of the Hugging Face hub")


def _type(ledger: Ledger, target: str, found: Mapping[str, Any]) -> None:
    if found.get("ranking") or preference.said(ledger):
        ledger.make(f"{target}.type", preference.TYPE, f"{FROM_INFO}; {preference.WHY}")
        return
    columns = found.get("columns") if isinstance(found.get("columns"), dict) else {}
    tags = found.get("tags") if isinstance(found.get("tags"), dict) else {}
    if found.get("formatting", "alpaca") == "alpaca":
        _alpaca(ledger, target, columns or {})
        return
    kinds = found.get("formatting"), {**SHAREGPT, **(columns or {}), **(tags or {})}
    _chat(ledger, target, kinds[1] if kinds[0] == "sharegpt" else {**OPENAI, **(columns or {}), **(tags or {})})


def _chat(ledger: Ledger, target: str, said: Mapping[str, Any]) -> None:
    """Sharegpt and messages differ in nothing but the names of fields and roles."""
    kinds = [kind for kind, names in CHATS.items() if all(said.get(part) == name for part, name in names.items())]
    ledger.make(f"{target}.type", kinds[0] if kinds else "messages", FROM_INFO)
    if not kinds:
        ledger.look.append(f"{target}.type: rows have fields and roles of their own; rename them to those of messages")


def _alpaca(ledger: Ledger, target: str, columns: Mapping[str, Any]) -> None:
    """The usual fields, or templates over the named ones: the query follows the prompt on a line of its own."""
    fields = {**ALPACA, **columns} if columns else ALPACA
    if all(fields.get(part) == name for part, name in ALPACA.items()) and "history" not in columns:
        ledger.make(f"{target}.type", "alpaca", FROM_INFO)
        return
    ledger.make(f"{target}.type", "rows", FROM_INFO)
    query = columns.get("query")
    asked = printed(str(fields["prompt"]))
    if query:
        asked += "{% if " + field(str(query)) + " %}\n" + printed(str(query)) + "{% endif %}"
    ledger.make(f"{target}.map.prompt", asked, FROM_INFO)
    ledger.make(f"{target}.map.completion", printed(str(fields["response"])), FROM_INFO)
    if columns.get("system"):
        ledger.make(f"{target}.map.system", printed(str(columns["system"])), FROM_INFO)
    if columns.get("history"):
        ledger.look.append(f"{target}.map: the earlier turns in {columns['history']} are left out")
