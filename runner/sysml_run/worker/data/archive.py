"""A data file as its members: tar, tar.gz and zip are read as streams and nothing is ever written to disk."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from sysml_run.errors import DataError

from .bounded import DAMAGE, GZIP, Bounded, gunzip

MEMBERS = 100_000
BLOCK = 512
HINT = "nothing was read from it; make the archive again with plain relative names"


@dataclass(frozen=True)
class Member:
    """One file's bytes; `name` is None where the file is not an archive. Read it before asking for the next."""

    file: str
    name: str | None
    stream: io.BufferedReader

    @property
    def label(self) -> str:
        """`file` or `file:member`, safe to print."""
        return printable(f"{self.file}:{self.name}" if self.name else self.file)


def printable(name: str) -> str:
    """A name from outside with control characters and lone surrogates spelled out."""
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode("ascii")


def members(path: Path, file: str) -> Iterator[Member]:
    """Every member of the file at `path`, shown as `file`; told apart by content, never by name.

    DataError names the member that is unsafe (absolute, `..`, link, device, bomb) or before which the archive breaks.
    """
    kind = sniff(path)
    with path.open("rb") as raw:
        match kind:
            case "zip":
                yield from zip_members(raw, file)
            case "tar":
                yield from tar_members(raw, file)
            case "tar.gz":
                yield from tar_members(gunzip(raw, file, limit=None), file)
            case _:
                yield Member(file, None, raw)


def sniff(path: Path) -> str:
    """`zip`, `tar`, `tar.gz` or `plain`, by magic bytes."""
    with path.open("rb") as file:
        head = file.read(2**16)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if is_tar(head):
        return "tar"
    return "tar.gz" if head.startswith(GZIP) and is_tar(first_block(head)) else "plain"


def is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def first_block(head: bytes) -> bytes:
    """The first 512 decompressed bytes; fewer where the gzip stream is damaged."""
    try:
        return zlib.decompressobj(31).decompress(head, BLOCK)
    except zlib.error:
        return b""


def tar_members(raw: io.BufferedReader, file: str) -> Iterator[Member]:
    last = "its start"
    try:
        with tarfile.open(fileobj=raw, mode="r|") as archive:
            for number, info in enumerate(archive):
                vars(archive)["members"] = []  # tarfile would keep every header it has seen
                check(file, info.name, number)
                last = printable(info.name)
                if info.isdir():
                    continue
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
                    raise unsafe(file, info.name, "a link, device or sparse file")
                yield Member(file, info.name, cast("io.BufferedReader", archive.extractfile(info)))
    except (tarfile.TarError, *DAMAGE) as error:
        raise damaged(file, last, error) from error


def zip_members(raw: io.BufferedReader, file: str) -> Iterator[Member]:
    last = "its start"
    try:
        with zipfile.ZipFile(raw) as archive:
            for number, info in enumerate(archive.infolist()):
                check(file, info.filename, number)
                last = printable(info.filename)
                mode = info.external_attr >> 16
                if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_IFMT(mode) == 0):
                    raise unsafe(file, info.filename, "a link or device")
                if info.flag_bits & 1:
                    raise unsafe(file, info.filename, "encrypted")
                if not info.is_dir():
                    yield zip_member(archive, info, file)
    except (zipfile.BadZipFile, NotImplementedError, *DAMAGE) as error:
        raise damaged(file, last, error) from error


def zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: str) -> Member:
    size = info.compress_size
    stream = Bounded(archive.open(info), printable(f"{file}:{info.filename}"), lambda: size)
    return Member(file, info.filename, io.BufferedReader(stream))


def check(file: str, name: str, number: int) -> None:
    """DataError for a name that leaves the archive, and for more members than anyone means."""
    if number >= MEMBERS:
        raise DataError(f"{file} holds more than {MEMBERS:,} members: refused", "pack rows into fewer, larger files")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or re.match(r"[A-Za-z]:", name):
        raise unsafe(file, name, "an absolute name")
    if ".." in path.parts:
        raise unsafe(file, name, "a name that leaves the archive")


def unsafe(file: str, name: str, why: str) -> DataError:
    return DataError(f"{file}: member {printable(name)!r} is {why}: archive refused", HINT)


def damaged(file: str, last: str, error: Exception) -> DataError:
    return DataError(f"{file} is damaged after {last}: {error}", "copy or download the archive again")
