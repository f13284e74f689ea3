"""A recipe by name: a file, standard input, or `path@rev` as git knows it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

from . import document as documents
from .document import Document
from .errors import UsageError
from .resolve import exists

NAMED = re.compile(r"(?P<path>.+?\.ya?ml)@(?P<rev>.+)|(?P<any>.+)@(?P<of>[^@]+)", re.DOTALL)
GIT = ("-c", "core.fsmonitor=false", "--no-optional-locks")  # runs no program that the repository names


def read(name: str) -> Document:
    """The document of a file, of `-`, or of `path@rev`; relative paths in it count from where the file lies today.

    A file whose own name has an @ wins. Raises RecipeError for what is no recipe, UsageError for what git has not.
    """
    if name == documents.DASH:
        return documents.stdin()
    found = None if exists(name) else NAMED.fullmatch(name)
    if found is None:
        return documents.load(Path(name))
    path, rev = Path(found["path"] or found["any"]), found["rev"] or found["of"]
    data = _content(name, path, rev)
    return replace(documents.parse(documents.decode(data, name), name), folder=path.parent)


def _content(name: str, path: Path, rev: str) -> bytes:
    """The file at a revision, as it is stored."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if _git(folder, "rev-parse", "--git-dir") is None:
        hint = "change to the folder of the repository, or name two files"
        raise UsageError(f"{name}: {folder} is in no repository that git can read", hint)
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    if commit is None:
        hint = "`git branch --all` and `git tag` list names; `git fetch` gets those of the server (origin/main)"
        raise UsageError(f"{name}: git knows no revision {rev!r}", hint)
    inside = path.absolute().relative_to(folder).as_posix()
    data = _git(folder, "cat-file", "blob", f"{commit.decode().strip()}:./{inside}")
    if data is None:
        raise UsageError(f"{name}: there is no file {path} at {rev}", f"git ls-tree -r --name-only {rev}")
    return data


def _git(folder: Path, *words: str) -> bytes | None:
    """What git answers; None where it refuses. Raises UsageError where there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *GIT, *words], capture_output=True, check=False)
    except FileNotFoundError:
        hint = "install git, or name two files"
        raise UsageError("path@rev is read through git, which is not on the PATH", hint) from None
    return done.stdout if done.returncode == 0 else None
