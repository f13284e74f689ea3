"""The split of a hub dataset; a part of one, as in train[:10%], is none that a recipe can name."""

from __future__ import annotations

from .ledger import Ledger

PART = "a part of a split cannot be named: use max_rows or where"


def carry(ledger: Ledger, target: str, name: str) -> None:
    """Carry the name of a split; of a part, the split it is taken from, which is said."""
    written = ledger.word(name)
    whole = written.partition("[")[0]
    if written == whole:
        ledger.same(target, name)
        return
    ledger.leave(name, PART)
    part(ledger, target, written)


def part(ledger: Ledger, target: str, written: str) -> None:
    """Write the split that `written` takes a part of."""
    whole = written.partition("[")[0]
    if whole.isidentifier():
        ledger.make(target, whole, f"{ledger.tool}: a part of it, {written}")
    ledger.look.append(
        f"{target}: {ledger.tool} reads {written}, and this recipe all of the split; see max_rows, where"
    )
