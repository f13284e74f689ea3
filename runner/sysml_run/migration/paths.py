"""Files that a configuration names, as the recipe must name them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sysml_run.resolve import PATH, exists

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DATA = (".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".arrow", ".txt", ".gz", ".zip", ".tar")


@dataclass(frozen=True)
class Folders:
    """`source` holds the configuration, `target` will hold the recipe; trainers count paths from where they start."""

    source: Path
    target: Path

    def find(self, written: str) -> Path | None:
        """The file or folder meant: beside the configuration, else in the current folder; None for neither."""
        tried = (self.source / written, Path(written))
        return next((path for path in tried if exists(str(path))), None)

    def local(self, written: str) -> str:
        """A path that means the same from the recipe's folder."""
        found = self.find(written) or self.source / written
        if written.startswith(("/", "~")) or (found == self.source / written and self.source == self.target):
            return written
        return os.path.relpath(found, self.target)

    def data(self, written: str) -> str:
        """A file or folder as it is named from the recipe, or `hub:owner/name`."""
        here = self.find(written) is not None or written.startswith(PATH) or written.endswith(DATA)
        return self.local(written) if here or not HUB_ID.fullmatch(written) else f"hub:{written}"

    def model(self, written: str) -> str:
        """A hub id stays; a folder is named from the recipe."""
        here = self.find(written) is not None or written.startswith(PATH)
        return self.local(written) if here else written
