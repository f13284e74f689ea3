"""Whose configuration it is, by the keys it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sysml_run.errors import UsageError

from .names import FILES, load

OURS = {"version", "model", "optimizer", "training"}


def tool(value: Any, source: str) -> str:
    """The trainer that knows most of the keys. Raises UsageError where none does, or more than one knows as many."""
    keys = mapping(value, source)
    if set(keys) >= OURS:
        raise UsageError(f"{source} is a recipe of sysml-run already", f"sysml-run validate {source}")
    if component(keys):
        return "torchtune"
    counts = {name: sum(key in load(name).known for key in keys) for name in FILES if name != "torchtune"}
    best = [name for name, count in counts.items() if count == max(counts.values())]
    if max(counts.values()) == 0:
        raise UsageError(f"{source}: no key in it is one of {', '.join(FILES)}", "say whose it is with --from TOOL")
    if len(best) > 1:
        hint = " or ".join(f"--from {name}" for name in best)
        raise UsageError(f"{source} may be a configuration of {' or '.join(best)}", f"say which: {hint}")
    return best[0]


def mapping(value: Any, source: str) -> Mapping[str, Any]:
    """The keys of the file. Raises UsageError for a file that is no mapping, or an empty one."""
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{source}: expected keys and values at the top level", "name a configuration file")
    return value


def component(value: Any) -> bool:
    """Whether a `_component_`, torchtune's name of a class, stands anywhere below."""
    if isinstance(value, dict):
        return "_component_" in value or any(component(below) for below in value.values())
    return isinstance(value, list) and any(component(below) for below in value)
