"""What makes a recipe fit -> text in the form of a diff, and values for JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from . import diffrows, diffview, outlook
from .diffrows import Row
from .fit import Changed, Fit, assignments
from .position import pointer

OTHERS = "other machines: sysml-run plan RECIPE --compare gpu:8xh100-80gb,tpu:v5e-64"


def text(found: Fit) -> str:
    """The verdict, what changes it with what each change costs, the verdict then, and the line to type."""
    now, then = outlook.judged(found.before), outlook.judged(found.after)
    if found.enough and not found.changes:
        return f"{now}\nnothing has to change\n"
    head = "what makes it fit, the cheapest in speed first"
    if not found.enough:
        head = f"nothing makes it fit; {OTHERS}"
        if not found.changes:
            return f"{now}\n{head}\n"
        head += "\nthe least that was reached takes"
    lines = [now, head, "", *table(found.changes), "", f"then  {then}", *_host(found), f"type  {typed(found.changes)}"]
    return "\n".join(lines) + "\n"


def _host(found: Fit) -> list[str]:
    words = outlook.host(found.after)
    return [f"      {words}"] if words else []


def table(changes: Sequence[Changed]) -> list[str]:
    """As `diff` has it; what a change costs is below it."""
    return diffview.table("changed", [_row(change) for change in changes])


def typed(changes: Sequence[Changed]) -> str:
    """As a shell takes it."""
    return " ".join(f"--set {shlex.quote(each)}" for each in assignments(changes))


def values(found: Fit) -> dict[str, Any]:
    """`changed` as in `diff`, with what each costs; `set` is what `--set` takes; `memory` is that after the changes."""
    rows = [
        {"pointer": each.pointer, "from": each.before, "to": each.after, "costs": each.costs or None}
        for each in found.changes
    ]
    memory = outlook.memory(found.after)
    return {"enough": found.enough, "changed": rows, "set": assignments(found.changes), "memory": memory}


def _row(change: Changed) -> Row:
    at = pointer(change.pointer)
    before, after = diffrows.value(change.before, at), diffrows.value(change.after, at)
    return Row(change.pointer, before, after, reasons=(change.costs,) if change.costs else ())
