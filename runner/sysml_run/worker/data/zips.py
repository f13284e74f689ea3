"""Members of a zip file, none of whose sizes are taken on trust."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from . import member
from .bounded import DAMAGE, Bounded, check_ratio
from .member import Member, check, damaged, printable, too_many, unsafe

END = struct.Struct("<4s4H2LH")  # the last record: number of entries at [4], bytes of the directory at [5]
END_64 = struct.Struct("<4sQ2H2L4Q")  # the same at [7] and [8], where they need more than 16 or 32 bits
LOCATOR_64 = 20  # bytes between the two
COMMENT_BYTES = 2**16
ENTRY_BYTES = 256  # of the directory for each member; the fixed fields take 46


class Stored(Bounded):
    """A member's bytes, unpacked; BadZipFile where there are fewer than the archive says."""

    def __init__(self, raw: IO[bytes], name: str, info: zipfile.ZipInfo) -> None:
        super().__init__(raw, name, lambda: info.compress_size, limit=None)
        self.size = info.file_size

    def readinto(self, buffer: Any, /) -> int:
        read = super().readinto(buffer)
        if not read and len(buffer) and self.count != self.size:
            raise zipfile.BadZipFile(f"{self.count:,} bytes where the archive says {self.size:,}")
        return read


def zip_members(raw: IO[bytes], file: str) -> Iterator[Member]:
    """Each regular file; DataError names what is unsafe, encrypted, damaged or a bomb."""
    size = raw.seek(0, io.SEEK_END)
    check_directory(raw, size, file)
    unpacked, last = 0, "its start"
    try:
        with zipfile.ZipFile(raw) as archive:
            for number, info in enumerate(archive.infolist()):
                check(file, info.filename, number)
                check_kind(info, size, file)
                last = printable(info.filename)
                if not info.is_dir():
                    stream = Stored(archive.open(info), printable(f"{file}:{info.filename}"), info)
                    yield Member(file, info.filename, io.BufferedReader(stream))
                    unpacked += stream.count
                    check_ratio(unpacked, size, file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, *DAMAGE) as error:
        raise damaged(file, last, error) from error


def check_kind(info: zipfile.ZipInfo, size: int, file: str) -> None:
    """DataError for anything but a plain file or folder that fits into an archive of `size` bytes."""
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe(file, info.filename, "a link or device")
    if info.flag_bits & 1:
        raise unsafe(file, info.filename, "encrypted")
    if info.compress_size > size:
        raise unsafe(file, info.filename, "larger than the archive it is in")


def check_directory(raw: IO[bytes], size: int, file: str) -> None:
    """DataError for more members than anyone means, before `zipfile` makes an object of each."""
    raw.seek(max(0, size - COMMENT_BYTES - END.size - LOCATOR_64 - END_64.size))
    tail = raw.read()
    at = len(tail) - END.size
    if tail[at : at + 4] != b"PK\x05\x06":
        at = tail.rfind(b"PK\x05\x06", 0, at + 4)
    if at < 0:
        return  # `zipfile` says what is wrong
    counts = [END.unpack_from(tail, at)[4:6]]
    wide = at - LOCATOR_64 - END_64.size
    if wide >= 0 and tail[wide : wide + 4] == b"PK\x06\x06":
        counts.append(END_64.unpack_from(tail, wide)[7:9])
    if any(entries > member.MEMBERS or length > member.MEMBERS * ENTRY_BYTES for entries, length in counts[-1:]):
        raise too_many(file)
