"""Values as other trainers' loaders take them: YAML 1.1 words, numbers in quotes, names that stand for a value."""

from __future__ import annotations

from typing import Any

from sysml_run.position import Pointer
from sysml_run.schema import branches, find, types
from sysml_run.schema import values as known
from sysml_run.wording import TRUTH
from sysml_run.yaml12 import plain


def truth(value: Any) -> bool | None:
    """True or false as YAML 1.1 and pydantic read it; None for anything else."""
    if isinstance(value, str):
        word = value.lower()
        return {"true": True, "false": False}.get(TRUTH.get(word, word))
    return value if isinstance(value, bool) else None


def number(value: Any) -> int | float | None:
    """A number, also one in quotes or with YAML 1.1's underscores; None for anything else."""
    if isinstance(value, str):
        value = plain(value.replace("_", "").strip())
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def off(value: Any) -> bool:
    """Whether a value switches nothing on: false, 0, or the words for it."""
    return value is None or truth(value) is False or number(value) == 0 or value in ("none", "")


def words(target: Pointer) -> tuple[str, ...]:
    """The names that the recipe's key takes, or the items of its list."""
    nodes = [one for node in find(target) for one in branches(node)]
    items = [one for node in nodes for one in branches(node.get("items", {}))]
    return tuple(dict.fromkeys(name for node in (*nodes, *items) for name in node.get("enum", ())))


def named(target: Pointer) -> dict[str, Any]:
    """Our value for every name, ours and others', that stands for one at the recipe's key."""
    nodes = find(target)
    ours = [*words(target), *(node["const"] for node in nodes if "const" in node)]
    return dict(zip(ours, ours, strict=True)) | {name: value for node in nodes for name, value in known(node).items()}


def fitted(target: Pointer, value: Any) -> Any:
    """The value in the type that the recipe's key takes, where it says the same; else the value itself."""
    taken = {kind for node in find(target) for one in branches(node) for kind in types(one)}
    if "boolean" in taken and truth(value) is not None:
        return truth(value)
    if taken & {"number", "integer"} and "string" not in taken and number(value) is not None:
        value = number(value)
    whole = isinstance(value, float) and value.is_integer() and "integer" in taken and "number" not in taken
    return int(value) if whole else value
