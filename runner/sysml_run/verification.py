"""Whether every byte of a package or a run is the one that was written. The folder may come from anybody.

Nothing outside the folder is opened: a link, a pipe or a device in it is a finding, not something to follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .errors import UsageError
from .manifest import FORMAT, NAME, SUMS, Entries, artifacts, names, sums

LARGEST = 1 << 26  # bytes of a list of checksums: a million files
PIECE = 1 << 20  # bytes
LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
DOUBTED = f"changed, or its line in {SUMS} is"
Seen = Callable[[int], object]


class _OtherError(Exception):
    """What stands under a name is no plain file that can be read; the text says what it is."""


@dataclass(frozen=True)
class Listing:
    """What a folder says of itself; `sums` are the names and digests of SHA256SUMS, None where that is not to be had.

    Of a manifest that is gone or cannot be believed `manifest` is what is wrong with it, and `entries` are of the sums.
    """

    kind: Literal["package", "run", "checksums"]
    entries: Entries
    sums: dict[str, str] | None
    manifest: str | None = None

    @property
    def bytes(self) -> int:
        """What there is to read, as far as the sizes are known."""
        sizes = (entry.get("bytes") for entry in self.entries.values() if isinstance(entry, dict))
        return sum(size for size in sizes if isinstance(size, int))


def listing(folder: Path) -> Listing:
    """Read the manifest, or the checksums where only they can be believed. Raises UsageError where there is neither."""
    listed = _sums(folder)
    try:
        made = _manifest(folder)
    except UsageError:
        if not listed:
            raise
        return _of_sums(listed, "changed" if os.path.lexists(folder / NAME) else "missing")
    if listed and _vouched(folder, listed) is False:
        own = {name: entry.get("sha256") for name, entry in made["files"].items() if isinstance(entry, dict)}
        same = own == {name: digest for name, digest in listed.items() if name != NAME}
        return _of_sums(listed, DOUBTED if same else "changed")
    return Listing(made["kind"], made["files"], listed)


def verify(folder: Path) -> list[str]:
    """`NAME: missing`, `changed`, `extra` and the like, by name. Raises UsageError when there is no list of ours."""
    return [f"{name}: {problem}" for name, problem in differences(folder, listing(folder)).items()]


def differences(folder: Path, listed: Listing, seen: Seen = lambda _: None) -> dict[str, str]:
    """What is wrong with each file, by name; `seen` is told of every piece that was read, in bytes."""
    summed = listed.kind == "package" or os.path.lexists(folder / SUMS)  # a run has no sums, but may be called one
    present = names(folder, half_written=True) - {NAME, SUMS} if summed else artifacts(folder)
    found = dict.fromkeys(present - set(listed.entries), "extra")
    for name, entry in listed.entries.items():
        problem = _compare(folder, name, entry, seen)
        if problem:
            found[name] = problem
    if listed.manifest:
        found[NAME] = listed.manifest
    elif summed:
        found |= _of_the_sums(folder, listed)
    return dict(sorted(found.items()))


def _of_sums(listed: dict[str, str], problem: str) -> Listing:
    entries: Entries = {name: {"sha256": digest} for name, digest in listed.items() if name != NAME}
    return Listing("checksums", entries, listed, problem)


def _vouched(folder: Path, listed: dict[str, str]) -> bool | None:
    """Whether SHA256SUMS has the manifest as it is here; None where it says nothing of it."""
    wanted = listed.get(NAME)
    return None if wanted is None else wanted == _digest(folder, NAME, None, lambda _: None)


def _of_the_sums(folder: Path, listed: Listing) -> dict[str, str]:
    """SHA256SUMS says the same of every file as the manifest, and has a line for the manifest."""
    if listed.sums is None:
        return {SUMS: "changed" if os.path.lexists(folder / SUMS) else "missing"}
    entries = {name: entry for name, entry in listed.entries.items() if isinstance(entry, dict) and "sha256" in entry}
    lines = [*sums(entries).splitlines(keepends=True), f"{listed.sums.get(NAME)}  {NAME}\n"]
    same = sorted(_text(folder / SUMS).splitlines(keepends=True)) == sorted(lines)
    return {} if same else {SUMS: "changed"}


def _compare(folder: Path, name: str, entry: Any, seen: Seen) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return "listed, but outside the folder"
    wanted = entry if isinstance(entry, dict) else {}
    try:
        for parent in [*path.parents][:-1]:
            if (folder / parent).is_symlink():
                return "behind a link, which is not followed"
        same = _digest(folder, name, wanted.get("bytes"), seen) == wanted.get("sha256", "")
    except FileNotFoundError:
        return "missing"
    except (_OtherError, NotADirectoryError) as error:
        return str(error) if isinstance(error, _OtherError) else "missing"
    except UnicodeEncodeError:
        return "missing"  # no file can have this name
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if same else "changed"


def _digest(folder: Path, name: str, size: int | None, seen: Seen) -> str | None:
    """Hex SHA-256 of a plain file; None, unread, where it has not `size` bytes. Raises _OtherError and OSError."""
    digest = hashlib.sha256()
    for piece in _pieces(folder / name, size):
        if piece is None:
            return None
        digest.update(piece)
        seen(len(piece))
    return digest.hexdigest()


def _pieces(path: Path, size: int | None = None) -> Iterator[bytes | None]:
    """The content; None first where the size is another. Opens nothing that could wait for a writer."""
    if path.is_symlink():
        raise _OtherError("a link, which is not followed")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
        here = os.fstat(handle)
        if not stat.S_ISREG(here.st_mode):
            raise _OtherError("not a plain file")
        if size is not None and here.st_size != size:
            yield None  # after which nobody reads on
        while piece := file.read(PIECE):
            yield piece


def _text(path: Path) -> str:
    """A small text file. Raises OSError, ValueError and _OtherError."""
    found = bytearray()
    for piece in _pieces(path):
        found += piece or b""
        if len(found) > LARGEST:
            raise ValueError("too large")
    return found.decode("utf-8")


def _sums(folder: Path) -> dict[str, str] | None:
    """Names and digests of SHA256SUMS (coreutils' format); None where it is not there or one line is not of it."""
    try:
        lines = _text(folder / SUMS).split("\n")
    except (OSError, ValueError, _OtherError):
        return None
    found = [LINE.fullmatch(line) for line in lines[:-1]]
    if lines[-1] or not all(found):
        return None
    return {_unescaped(line[3]) if line[1] else line[3]: line[2] for line in found if line}


def _unescaped(name: str) -> str:
    return re.sub(r"\\.", lambda pair: ESCAPES.get(pair[0], pair[0]), name)


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of ours. Raises UsageError."""
    try:
        made: Any = json.loads(_text(folder / NAME))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} has no {NAME}", "name a package or a finished run directory") from None
    except (OSError, ValueError, RecursionError, _OtherError) as error:
        raise UsageError(f"{folder / NAME} cannot be read: {error}") from None
    known = isinstance(made, dict) and made.get("format") == FORMAT and made.get("kind") in ("package", "run")
    if not known or not isinstance(made.get("files"), dict):
        raise UsageError(f"{folder / NAME} is not a manifest of sysml-run (format {FORMAT})")
    return dict(made)


def refusal(folder: Path) -> str | None:
    """Why `folder` may not be replaced by a package; None if it is absent, empty or a package of ours alone."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not folder.is_dir():
        return "it is a file"
    try:
        made = _manifest(folder)
    except UsageError as error:
        return error.message
    foreign = sorted(names(folder) - set(made["files"]) - {NAME, SUMS})
    if made["kind"] != "package":
        return "it is a run directory"
    return f"it holds files that are not part of the package: {', '.join(foreign[:3])}" if foreign else None
