"""Copies of files that take no room where the file system can share blocks."""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path

FICLONE = 0x40049409  # linux/fs.h: let two files share their blocks until one of them is written to


def clone(source: Path, target: Path) -> None:
    """Copy a file; where the file system can, the copy shares the blocks until one of the two is written to.

    Never a hard link: saving into `merged/` once more would change the package behind its checksums.
    """
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            shutil.copyfile(source, target)


def clone_folder(source: Path, target: Path) -> None:
    """Copy every plain file below `source` into `target`, which may be there; links are not followed nor copied."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            clone(path, copy)
