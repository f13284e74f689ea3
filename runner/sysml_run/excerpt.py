"""Two long texts -> the lines that differ, in the manner of a unified diff, each cut to what fits."""

from __future__ import annotations

from collections.abc import Iterator

MOST = 12  # lines; a reader who wants more has the files
LEAD = 24  # characters kept before the first that differs
CUT = "…"


def lines(old: str, new: str, width: int) -> list[str]:
    """`- ` and `+ ` lines of at most `width` characters; of a line that changed a little, the part that changed."""
    found = list(_changed(old, new, width - 2))
    more = len(found) - MOST
    return found if more <= 0 else [*found[:MOST], f"{CUT} {more} more"]


def clipped(text: str, width: int) -> str:
    """The beginning of `text`, in at most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + CUT


def _changed(old: str, new: str, width: int) -> Iterator[str]:
    from difflib import SequenceMatcher

    before, after = old.split("\n"), new.split("\n")
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        gone, come = before[a:b], after[c:d]
        paired = min(len(gone), len(come))
        for one, other in zip(gone[:paired], come[:paired], strict=True):
            yield from _pair(one, other, width)
        yield from (f"- {clipped(line, width)}" for line in gone[paired:])
        yield from (f"+ {clipped(line, width)}" for line in come[paired:])


def _pair(old: str, new: str, width: int) -> tuple[str, str]:
    """Both from a little before the first difference."""
    if max(len(old), len(new)) <= width:
        return f"- {old}", f"+ {new}"
    same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - LEAD)
    lead = CUT if start else ""
    return f"- {clipped(lead + old[start:], width)}", f"+ {clipped(lead + new[start:], width)}"
