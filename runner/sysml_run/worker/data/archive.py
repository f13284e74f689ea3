"""A data file as its members: tar, tar.gz and zip are read as streams and nothing is ever written to disk."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from .bounded import DAMAGE, GZIP, gunzip
from .member import Member as Member
from .member import check, damaged, unsafe
from .member import printable as printable
from .zips import zip_members

BLOCK = 512
READS_AFTER_END = 8  # what a whole archive takes, and some more
HEADER_BYTES = 2**16  # of what a tar says about one member: its long name, its pax records
ABOUT_NEXT = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}


def members(path: Path, file: str, opened: Callable[[IO[bytes]], Any] = lambda raw: None) -> Iterator[Member]:
    """Every member of the file at `path`, shown as `file`; told apart by content, never by name.

    `opened` gets the file itself, whose position says how far it is read.
    DataError names the member that is unsafe (absolute, `..`, link, device, bomb) or before which the archive breaks.
    """
    kind = sniff(path)
    with path.open("rb") as raw:
        opened(raw)
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


class Header(tarfile.TarInfo):
    """A tar header whose sizes are looked at before `tarfile` believes them and reads that much into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0:
            raise tarfile.ReadError(f"{printable(self.name)} has a negative size")
        if self.type in ABOUT_NEXT and self.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes about one member")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{printable(self.name)} is a sparse file")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, member: tarfile.TarInfo, *_: Any) -> None:
        """The map of this kind is as long as it says."""
        raise tarfile.ReadError(f"{printable(member.name)} is a sparse file")


class Ending:
    """A stream that says so when it is read on beyond its end, as `tarfile` does for as long as a header says."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self.raw, self.after_end = raw, 0

    def read(self, size: int) -> bytes:
        data = self.raw.read(size)
        self.after_end = 0 if data else self.after_end + 1
        if self.after_end > READS_AFTER_END:
            raise EOFError("it ends before its last member does")
        return data


def tar_members(raw: io.BufferedReader, file: str) -> Iterator[Member]:
    last = "its start"
    try:
        with tarfile.open(fileobj=cast("Any", Ending(raw)), mode="r|", tarinfo=Header) as archive:
            for number, info in enumerate(archive):
                vars(archive)["members"] = []  # tarfile would keep every header it has seen
                check(file, info.name, number)
                last = printable(info.name)
                if info.isdir():
                    continue
                if info.size < 0:
                    raise unsafe(file, info.name, "of a negative size")
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
                    raise unsafe(file, info.name, "a link, device or sparse file")
                yield Member(file, info.name, cast("io.BufferedReader", archive.extractfile(info)))
    except (tarfile.TarError, ValueError, RecursionError, *DAMAGE) as error:
        raise damaged(file, last, error) from error
