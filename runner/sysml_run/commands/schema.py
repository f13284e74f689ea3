"""`sysml-run schema`: the JSON Schema of recipes, for editors and other tools."""

from __future__ import annotations

import argparse
import json
import sys

from sysml_run import schema


def run(options: argparse.Namespace) -> int:
    """Print the schema as one file without references; it has no `$id`, as it is published at no address."""
    sys.stdout.write(json.dumps(schema.bundled(), indent=2) + "\n")
    return 0
