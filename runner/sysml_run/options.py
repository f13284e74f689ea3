"""The command line: each command with its options and examples, declared once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import __version__

EXIT_CODES = """\
exit codes: 0 done, 1 a stage failed, 2 the recipe or the command line is wrong, 3 a fault of sysml-run, 130 stopped."""


@dataclass(frozen=True)
class Command:
    """`does` is one line for the list of commands; `examples` are lines that can be typed."""

    does: str
    options: Callable[[argparse.ArgumentParser], None]
    examples: str


def parser(command: str) -> argparse.ArgumentParser:
    """The options of one command of COMMANDS."""
    shown = COMMANDS[command]
    epilog = f"examples:\n{_indented(shown.examples)}\n\n"
    if command == "run":
        epilog += f"commands (`sysml-run COMMAND --help` has the options of each):\n{_listed()}\n\n"
    made = argparse.ArgumentParser(
        prog="sysml-run" if command == "run" else f"sysml-run {command}",
        description=shown.does,
        epilog=epilog + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"sysml-run {__version__}")
    shown.options(made)
    return made


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _listed() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items())


def _format(made: argparse.ArgumentParser, *others: str) -> None:
    made.add_argument("--format", choices=("text", *others), default="text", help="how the answer is written (text)")


def _changes(made: argparse.ArgumentParser) -> None:
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe")
    made.add_argument("--hardware", metavar="H", help="swap the hardware section: cpu, gpu:8xh100-80gb, tpu:v3-8")


def _machine(made: argparse.ArgumentParser) -> None:
    made.add_argument("--smoke", action="store_true", help="a tiny random model, a few rows, a few steps")
    made.add_argument("--offline", action="store_true", help="open no connection to the hub")


def _run(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipes", nargs="*", metavar="RECIPE", help="recipe files, run one after the other")
    _changes(made)
    _machine(made)
    stages = lambda text: text.split(",")  # noqa: E731 - argparse calls it
    made.add_argument("--only", type=stages, default=[], metavar="STAGE,…", help="only these stages")
    made.add_argument("--until", metavar="STAGE", help="stop after this stage")
    made.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with RUN, or with the newest run")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (runs)")


def _validate(made: argparse.ArgumentParser) -> None:
    meant = "files, folders (every .yaml below), patterns in quotes, or - for standard input"
    made.add_argument("recipes", nargs="+", metavar="RECIPE", help=meant)
    made.add_argument("--strict", action="store_true", help="warnings fail too")
    _format(made, "json", "github")


def _plan(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    _changes(made)
    _machine(made)
    made.add_argument("--fit", action="store_true", help="the smallest changes by which training fits its memory")
    machines = lambda text: text.split(",")  # noqa: E731 - argparse calls it
    made.add_argument("--compare", type=machines, metavar="H,…", help="a row for each machine: memory, verdict, hours")
    made.add_argument("--trace", action="store_true", help="the memory of one step on empty tensors, for any model")
    made.add_argument("--write", type=Path, metavar="DIR", help="write the run directory, ready to be run by hand")
    clusters = ("slurm", "kubernetes", "skypilot", "gcloud")
    made.add_argument("--target", choices=clusters, help="a job for a cluster around the same commands")
    _format(made, "json")


def _data(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    _changes(made)
    _machine(made)
    made.add_argument("--show", type=int, default=0, metavar="N", help="print N training rows as the model sees them")
    made.add_argument("--tokens", action="store_true", help="with --show: token by token")
    made.add_argument("--out", type=Path, metavar="DIR", help="write every row as JSON lines, with a manifest")
    _format(made, "json")


def _diff(made: argparse.ArgumentParser) -> None:
    made.add_argument("a", metavar="A", help="a recipe: a file, - (standard input), or path@rev of git")
    made.add_argument("b", nargs="?", metavar="B", help="the other one; without it A, changed by --set and --hardware")
    _changes(made)
    _format(made, "markdown", "json")


def _show(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", metavar="RECIPE", help="a recipe: a file, - (standard input), or path@rev of git")
    _changes(made)
    _format(made, "json")


def _explain(made: argparse.ArgumentParser) -> None:
    made.add_argument("key", nargs="?", metavar="KEY", help="such as optimizer.lr_scheduler; without it every section")


def _new(made: argparse.ArgumentParser) -> None:
    made.add_argument("--from", dest="source", metavar="RECIPE", help="a ready recipe by name, or a recipe file")
    made.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the file to write")


def _schema(_: argparse.ArgumentParser) -> None:
    """No options: it prints one document."""


def _doctor(made: argparse.ArgumentParser) -> None:
    made.add_argument("recipe", nargs="?", type=Path, metavar="RECIPE", help="look for what this recipe needs")
    made.add_argument("--auth", action="store_true", help="ask the hub what the token at hand may read")
    _format(made, "json")


def _migrate(made: argparse.ArgumentParser) -> None:
    made.add_argument("config", type=Path, metavar="CONFIG", help="another trainer's YAML")
    tools = ("axolotl", "llama-factory", "torchtune", "trl")
    made.add_argument("--from", dest="tool", choices=tools, help="whose it is, where that cannot be seen from its keys")
    made.add_argument("--out", type=Path, metavar="FILE", help="write the recipe here instead of printing it")


def _report(made: argparse.ArgumentParser) -> None:
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    _format(made, "json")


def _verify(made: argparse.ArgumentParser) -> None:
    made.add_argument("paths", nargs="+", type=Path, metavar="RUN|PACKAGE", help="finished runs, or packages")
    _format(made, "json")


def _package(made: argparse.ArgumentParser) -> None:
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished run directories")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write, whole or not at all")
    made.add_argument("--python", action="store_true", help="a Python package that pip installs")
    made.add_argument("--pieces", metavar="SIZE", help="cut files larger than this, such as 50MB; join.py goes along")
    made.add_argument("--push", metavar="OWNER/NAME", help="upload it to the hub too, with the token that doctor names")
    made.add_argument("--public", action="store_true", help="with --push: a repository that everybody sees")


COMMANDS: Mapping[str, Command] = {
    "run": Command(
        "All of a recipe: prepare, train, evaluate, merge, package, report (the default command).",
        _run,
        """\
sysml-run recipes/quickstart.yaml
sysml-run --smoke recipes/generalist_mixtral_lora.yaml    every stage with a tiny model, in a minute
sysml-run recipes/quickstart.yaml --set optimizer.learning_rate=5e-4
sysml-run recipes/quickstart.yaml --resume                go on with the newest run of this recipe""",
    ),
    "validate": Command(
        "Every problem of every recipe at once, with file, line and column.",
        _validate,
        """\
sysml-run validate recipes                      every recipe in the folder
sysml-run validate a.yaml b.yaml --strict       warnings fail too
sysml-run validate 'recipes/**/*.yaml' --format github
git show HEAD:recipes/quickstart.yaml | sysml-run validate -""",
    ),
    "plan": Command(
        "Everything that would run and whether it fits, on screen, as JSON or as files that run by hand.",
        _plan,
        """\
sysml-run plan recipes/quickstart.yaml
sysml-run plan recipes/quickstart.yaml --fit              the smallest changes by which it fits
sysml-run plan recipes/quickstart.yaml --compare gpu:1xh100-80gb,gpu:8xa100-40gb,tpu:v3-8
sysml-run plan recipes/quickstart.yaml --trace            memory of a model that no formula is known for
sysml-run plan recipes/quickstart.yaml --write DIR        the run directory, ready to be run by hand
sysml-run plan recipes/quickstart.yaml --write DIR --target slurm         and DIR/launch/slurm.sbatch
sysml-run plan recipes/quickstart.yaml --format json""",
    ),
    "data": Command(
        "The rows as the model will see them, what was left out, and the loss mask.",
        _data,
        """\
sysml-run data recipes/quickstart.yaml --show 2
sysml-run data recipes/quickstart.yaml --show 1 --tokens
sysml-run data recipes/quickstart.yaml --out rows""",
    ),
    "report": Command(
        "What came of runs: before and after, where things are, how long each stage took.",
        _report,
        """\
sysml-run report runs/quickstart/20260101-120000-abcd
sysml-run report runs/quickstart/* --format json""",
    ),
    "verify": Command(
        "Whether every byte of a package or a run is as it was written; names each file that is not.",
        _verify,
        """\
sysml-run verify models/quickstart
sysml-run verify runs/quickstart/20260101-120000-abcd --format json""",
    ),
    "package": Command(
        "Finished runs as one folder to hand over: weights, tokenizer, quantized copies, model card, checksums.",
        _package,
        """\
sysml-run package runs/quickstart/20260101-120000-abcd --out models/quickstart
sysml-run package runs/a/1 runs/b/2 --out models/both      each in a folder of its own
sysml-run package runs/a/1 --out dist --python --pieces 50MB
sysml-run package runs/a/1 --out models/a --push OWNER/NAME""",
    ),
    "diff": Command(
        "What changed between two recipes, and what follows from it.",
        _diff,
        """\
sysml-run diff recipes/quickstart.yaml my.yaml
sysml-run diff recipes/quickstart.yaml@main recipes/quickstart.yaml --format markdown
sysml-run diff recipes/quickstart.yaml --set training.micro_batch_size=8""",
    ),
    "show": Command(
        "A recipe with every default filled in, one key a line.",
        _show,
        """\
sysml-run show recipes/quickstart.yaml
sysml-run show recipes/quickstart.yaml --format json      with the source of each value""",
    ),
    "explain": Command(
        "What a key means: its type, limits, default and an example.",
        _explain,
        """\
sysml-run explain
sysml-run explain optimizer
sysml-run explain optimizer.lr_scheduler""",
    ),
    "new": Command(
        "A recipe of your own, from a ready one.",
        _new,
        """\
sysml-run new                                             the ready recipes
sysml-run new --from quickstart my.yaml""",
    ),
    "migrate": Command(
        "Another trainer's configuration -> a recipe, with a list of what could not be carried.",
        _migrate,
        """\
sysml-run migrate axolotl.yaml --out my.yaml
sysml-run migrate sft.yaml --from trl""",
    ),
    "schema": Command(
        "The JSON Schema of recipes as one file.",
        _schema,
        """\
sysml-run schema > recipe.schema.json""",
    ),
    "doctor": Command(
        "What this machine has and lacks, and the command that mends it.",
        _doctor,
        """\
sysml-run doctor
sysml-run doctor recipes/quickstart.yaml
sysml-run doctor recipes/generalist_mixtral_lora.yaml --auth""",
    ),
}
