"""`sysml-run package`: finished runs as one folder to hand over, and on the hub."""

from __future__ import annotations

import argparse
import shlex
import sys

from sysml_run import handover, push
from sysml_run.errors import UsageError


def run(options: argparse.Namespace) -> int:
    """Check every byte of the runs' packages, write the folder, and push it where that is asked for."""
    most = handover.size(options.pieces) if options.pieces else None
    if options.public and not options.push:
        raise UsageError("--public is for a repository of the hub", "add --push OWNER/NAME")
    if options.push:
        push.ready(options.push)
    found = handover.parts(options.runs)
    made = handover.write(found, options.out, python=options.python, most=most)
    total = sum(entry["bytes"] for entry in made["files"].values())
    sys.stdout.write(f"{options.out}: {', '.join(part.name for part in found)}; ")
    sys.stdout.write(f"{len(made['files']) + 2} files, {total / 1e6:,.1f} MB\n")
    if made.get("cut"):
        sys.stdout.write(f"cut into pieces: {', '.join(made['cut'])}; python join.py DIR makes them whole\n")
    if options.python:
        sys.stdout.write(f"pip install {shlex.quote(str(options.out.absolute()))}, then: import {made['module']}\n")
    if options.push:
        sys.stdout.write(f"pushed to {push.push(options.out, options.push, public=options.public)}\n")
    return 0
