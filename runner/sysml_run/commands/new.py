"""`sysml-run new`: a recipe of one's own, copied from a ready one and made fit for its place."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from sysml_run import document as documents
from sysml_run import resources, schema, validate
from sysml_run.adapt import adapt
from sysml_run.document import SUFFIXES
from sysml_run.errors import UsageError
from sysml_run.resolve import exists
from sysml_run.wording import closest

from .load import refuse, unwritable


def run(options: argparse.Namespace) -> int:
    """Write the copy, or list the ready recipes when nothing is named. Raises RecipeError or UsageError."""
    if options.source is None and options.file is None:
        sys.stdout.write(listed())
        return 0
    if options.source is None:
        hint = (
            f"sysml-run new --from quickstart {shlex.quote(str(options.file))}; sysml-run new lists the ready recipes"
        )
        raise UsageError("no recipe to start from is named", hint)
    if options.file is None:
        raise UsageError("no file to write is named", f"sysml-run new --from {shlex.quote(options.source)} my.yaml")
    sys.stdout.write(copy(options.source, options.file))
    return 0


def listed() -> str:
    """The ready recipes, with their descriptions."""
    found = {file.stem: documents.load(file).value.get("description", "") for file in ready()}
    width = max(map(len, found))
    lines = "".join(f"  {name:{width}}  {said}\n" for name, said in found.items())
    return f"Ready recipes:\n{lines}\nsysml-run new --from quickstart my.yaml makes one of them your own.\n"


def ready() -> list[Path]:
    """The shipped recipes' files."""
    return sorted(resources.recipes().glob("*.yaml"))


def copy(source: str, file: Path) -> str:
    """Write the copy; what was done and what to type next. Raises RecipeError or UsageError."""
    document = documents.load(_source(source))
    refuse(validate.check(document))
    adapted = adapt(document, file)
    _write(file, adapted.text)
    lines = [f"{file} is made of {document.source}", *(f"  {change}" for change in adapted.changes)]
    beside = file.with_name(schema.ROOT)
    if adapted.wants_schema and not exists(str(beside)):
        _write(beside, json.dumps(schema.bundled(), indent=2) + "\n")
        lines.append(f"  {beside} is there for editors that complete YAML by a schema; sysml-run does not read it")
    name = shlex.quote(str(file))
    return "\n".join([*lines, "next:", f"  sysml-run validate {name}", f"  sysml-run --smoke {name}"]) + "\n"


def _source(name: str) -> Path:
    """A ready recipe by its name, else a file. Raises UsageError."""
    names = {file.stem: file for file in ready()}
    if name in names:
        return names[name]
    if exists(name) or name.endswith(SUFFIXES):
        return Path(name)
    near = closest(name, names)
    raise UsageError(
        f"no ready recipe is called {name!r}", f"did you mean {near}?" if near else "sysml-run new lists them"
    )


def _write(file: Path, text: str) -> None:
    """Make a file that is not there yet. Raises UsageError when something is, SysmlError where none can be made."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="") as made:
            made.write(text)
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already, and nothing is overwritten", "name another file"
        ) from None
    except FileNotFoundError as error:
        raise unwritable(file, error) from None
