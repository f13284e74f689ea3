"""Processor seconds of `sysml-run validate` against `check-jsonschema` on the same schema and the same files.

Each command is a process of its own; the two take turns, ROUNDS times, and the medians are compared. The cost of one
further file is the slope between one copy of the shipped recipes and MANY copies.

    python benchmarks/validation_speed.py
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from sysml_run import resources, schema

ROUNDS, MANY = 9, 50


def seconds(*command: str) -> float:
    """User and system time of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print one table."""
    recipes = sorted(resources.recipes().glob("*.yaml"))
    ours = str(Path(sys.executable).with_name("sysml-run"))
    theirs = str(Path(sys.executable).with_name("check-jsonschema"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.schema.json"
        file.write_text(json.dumps(schema.bundled()))
        copies = [
            shutil.copy(recipe, Path(folder) / f"{number}-{recipe.name}")
            for number in range(MANY)
            for recipe in recipes
        ]
        sets = {"shipped": list(map(str, recipes)), "copies": list(map(str, copies))}
        times: dict[tuple[str, str], list[float]] = {}
        for _ in range(ROUNDS):
            for name, files in sets.items():
                times.setdefault(("ours", name), []).append(seconds(ours, "validate", *files))
                times.setdefault(("theirs", name), []).append(seconds(theirs, "--schemafile", str(file), *files))
    show(times, len(recipes), len(copies))


def show(times: dict[tuple[str, str], list[float]], few: int, many: int) -> None:
    middle = {key: statistics.median(values) for key, values in times.items()}
    print(f"processor seconds, median of {ROUNDS}; Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    print(f"| command | {few} recipes | {many} recipes | each further file |\n| --- | --- | --- | --- |")
    for who, name in (("ours", "sysml-run validate"), ("theirs", f"check-jsonschema {version('check-jsonschema')}")):
        further = 1000 * (middle[who, "copies"] - middle[who, "shipped"]) / (many - few)
        print(f"| {name} | {middle[who, 'shipped']:.3f} s | {middle[who, 'copies']:.3f} s | {further:.2f} ms |")
    ratios = [middle["ours", name] / middle["theirs", name] for name in ("shipped", "copies")]
    print(f"| ratio | {ratios[0]:.2f} | {ratios[1]:.2f} | |")


if __name__ == "__main__":
    main()
