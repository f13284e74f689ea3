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
from pathlib import Path

from . import __version__
from .errors import RecipeError, SysmlError

REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST),
    *(errno.ELOOP, errno.ENAMETOOLONG),
)
EXAMPLES = """\
examples:
  sysml-run recipes/quickstart.yaml                         all of it: prepare, train, evaluate, merge, package, report
  sysml-run --smoke recipes/generalist_mixtral_lora.yaml    every stage with a tiny model, in a minute
  sysml-run recipes/quickstart.yaml --set optimizer.learning_rate=5e-4
  sysml-run recipes/quickstart.yaml --resume                go on with the newest run of this recipe
  sysml-run validate recipes/*.yaml                         every problem, with file, line and column
  sysml-run plan recipes/quickstart.yaml --write DIR        everything that would run, as files

commands: run (the default), validate, plan; `sysml-run COMMAND --help` has the options of each.
exit codes: 0 done, 1 a stage failed, 2 the recipe or the command line is wrong, 3 a fault of sysml-run, 130 stopped.
"""


def parser(command: str) -> argparse.ArgumentParser:
    """The options of `run`, `validate` or `plan`."""
    name = "sysml-run" if command == "run" else f"sysml-run {command}"
    look = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(name, epilog=EXAMPLES, formatter_class=look, allow_abbrev=False)
    made.add_argument("--version", action="version", version=f"sysml-run {__version__}")
    {"run": _run_options, "validate": _validate_options, "plan": _plan_options}[command](made)
    return made


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
    command = arguments.pop(0) if arguments and arguments[0] in ("run", "validate", "plan") else "run"
    try:
        options = parser(command).parse_args(arguments)
        return _command(command)(options)
    except SystemExit as stop:  # argparse, after --help, --version or a usage error
        return int(stop.code or 0)
    except RecipeError as error:
        from . import report

        sys.stderr.write(report.text(error.problems))
        return error.exit_code
    except SysmlError as error:
        hint = "".join(f"\n  {line}" for line in (error.hint or "").splitlines())
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on where it stopped\n")
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


def _recipe_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    made.add_argument("--hardware", metavar="H", help="swap the hardware section: cpu, gpu:8xh100-80gb, tpu:v3-8")
    made.add_argument("--smoke", action="store_true", help="a tiny random model, a few rows, a few steps")
    made.add_argument("--offline", action="store_true", help="open no connection to the hub")


def _run_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipes", nargs="*", metavar="RECIPE", help="recipe files, run one after the other")
    _recipe_options(made)
    made.add_argument(
        "--only", type=lambda text: text.split(","), default=[], metavar="STAGE,…", help="only these stages"
    )
    made.add_argument("--until", metavar="STAGE", help="stop after this stage")
    made.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with RUN, or with the newest run")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (runs)")


def _validate_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="recipe files")
    made.add_argument("--format", choices=("text", "json"), default="text", help="how problems are written (text)")


def _plan_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    _recipe_options(made)
    made.add_argument("--write", type=Path, metavar="DIR", help="write the run directory, ready to be run by hand")
    made.add_argument("--format", choices=("text", "json"), default="text", help="how the plan is written (text)")


if __name__ == "__main__":
    raise SystemExit(main())
