"""The prompt templates that have a name; a file in the worker's folder is all that makes one."""

from __future__ import annotations

from .resources import PACKAGE

FOLDER = PACKAGE / "worker" / "data" / "templates"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.jinja")))
