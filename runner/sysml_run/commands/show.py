"""`sysml-run show RECIPE`: every key with its value, defaults filled in; the same text wherever the file lies."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from sysml_run.diffrows import is_path
from sysml_run.document import Document
from sysml_run.position import Pointer, dotted
from sysml_run.yaml12 import plain

from .load import look


def run(options: argparse.Namespace) -> int:
    """Print the resolved recipe; the values of a plan depend on the machine and are not in it."""
    document, resolved = look(options.recipe, options.set, options.hardware)
    if options.format == "json":
        shown = {"recipe": document.source, "values": resolved.values, "sources": resolved.sources}
        sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(
            f"{dotted(at)}: {_shown(each, at, document)}\n" for at, each in _leaves(resolved.values, ())
        )
    return 0


def _leaves(value: Any, at: Pointer) -> Iterator[tuple[Pointer, Any]]:
    """Every key in the schema's order; a list without objects is one value."""
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, (*at, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, (*at, number))
    else:
        yield at, value


def _shown(value: Any, at: Pointer, document: Document) -> str:
    """As YAML: a text of several lines is an indented block, a path is as it was written."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if is_path(at):
        value = _path(value, at, document)
    lines = value.split("\n")
    if all(line.isprintable() for line in lines) and len(lines) > 1:
        return "|\n" + "\n".join(f"  {line}".rstrip() for line in lines)
    clear = value != "" and value.isprintable() and value == value.strip() and ": " not in value
    bare = clear and plain(value) == value and value[0] not in "|>{[\"'"
    return value if bare else json.dumps(value, ensure_ascii=False)


def _path(value: str, at: Pointer, document: Document) -> str:
    """A relative path of the recipe, in its shortest spelling; any other is absolute."""
    written: Any = document.value
    for part in at:
        written = written[part]
    own = document.place(at).source == document.source and not written.startswith(("/", "~"))
    return os.path.normpath(written) if own and value.startswith("/") else value
