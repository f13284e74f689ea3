"""Arguments -> call -> exit code; no logic."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence

from . import __version__
from .errors import RecipeError, SysmlError
from .options import COMMANDS, parser

REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the only place where exceptions become exit codes."""
    try:
        code = _guarded(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`: nobody reads on, and Python must not try once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _guarded(arguments: list[str]) -> int:
    command = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "run"
    try:
        options = parser(command).parse_args(arguments)
        return _command(command)(options)
    except SystemExit as stop:  # argparse, after --help, --version or a usage error
        return int(stop.code or 0)
    except RecipeError as error:
        from . import report

        sys.stderr.write(report.text(error.problems, report.wants_colour(sys.stderr)))
        return error.exit_code
    except SysmlError as error:
        hint = "".join(f"\n  {line}" for line in (error.hint or "").splitlines())
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nstopped; the same command goes on where it stopped\n" if command == "run" else "\nstopped\n"
        )
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        return _unexpected(error)


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    found: Callable[[argparse.Namespace], int] = importlib.import_module(f".commands.{name}", __package__).run
    return found


def _unexpected(error: Exception) -> int:
    """What the operating system refuses is for the user to mend; everything else is for us."""
    if isinstance(error, OSError) and error.errno in REFUSED:
        sys.stderr.write(f"error: {error.filename or 'this machine'}: {error.strerror}\n")
        return 1
    sys.stderr.write(f"This is a fault of sysml-run, not of your recipe. Details: {_fault_report()}\n")
    return 3


def _fault_report() -> str:
    """Write versions and traceback to a file and return its name."""
    with tempfile.NamedTemporaryFile("w", prefix="sysml-run-fault-", suffix=".txt", delete=False) as file:
        file.write(f"sysml-run {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        file.write(traceback.format_exc())
    return file.name


if __name__ == "__main__":
    raise SystemExit(main())
