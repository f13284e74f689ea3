"""Where the shipped schemas, recipes and samples are: in the installed package, else in the checkout."""

from __future__ import annotations

from pathlib import Path

from .errors import InstallError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent.parent


def schemas() -> Path:
    """The folder of `*.schema.json`. Raises InstallError."""
    return _folder("schemas")


def recipes() -> Path:
    """The folder of ready recipes. Raises InstallError."""
    return _folder("recipes")


def samples() -> Path:
    """The folder of sample rows, one `TYPE.jsonl` for each dataset type."""
    return PACKAGE / "samples"


def _folder(name: str) -> Path:
    for parent in (PACKAGE, CHECKOUT):
        if (parent / name).is_dir():
            return parent / name
    raise InstallError(f"the folder {name!r} is in neither {PACKAGE} nor {CHECKOUT}", "reinstall sysml-run")
