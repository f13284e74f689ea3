"""Puts a package that came in pieces together again: `python join.py DIR` leaves it whole in a new folder in DIR."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

LIST = "pieces.json"
OURS = (LIST, "join.py", "manifest.json", "SHA256SUMS", "README.md")  # of the pieces; the whole's have other names


def whole(source: Path, target: Path) -> Path:
    """Leave the joined files in a folder below `target` that is named by their digests, or find it there.

    Raises ValueError when a piece is not as it was cut; then nothing is left.
    """
    text = (source / LIST).read_bytes()
    listed = json.loads(text)
    folder = target / hashlib.sha256(text).hexdigest()[:16]
    if not folder.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as staging:
            made = Path(staging) / "whole"
            made.mkdir()
            fill(source, made, listed)
            try:
                made.replace(folder)
            except OSError:  # another process was as fast
                if not folder.is_dir():
                    raise
    return folder


def fill(source: Path, folder: Path, listed: dict[str, Any]) -> None:
    """Copy what is whole, join what is not, and give the whole's own lists their names back."""
    pieces = {piece for entry in listed["files"].values() for piece in entry["pieces"]}
    renamed = {here: name for name, here in listed["renamed"].items()}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and name not in pieces and name not in OURS:
            copy = folder / renamed.get(name, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for name, entry in listed["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        join([source / piece for piece in entry["pieces"]], folder / name, entry["sha256"])


def join(pieces: list[Path], target: Path, wanted: str) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for piece in pieces:
            with piece.open("rb") as part:
                while data := part.read(1 << 20):
                    digest.update(data)
                    file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != wanted:
        raise ValueError(f"the pieces of {target.name} are not as they were cut")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python join.py DIR\nwrites the whole into a new folder in DIR and prints its name")
    sys.stdout.write(f"{whole(Path(__file__).parent, Path(sys.argv[1]))}\n")
