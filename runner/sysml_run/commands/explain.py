"""`sysml-run explain`: what a key means, in words."""

from __future__ import annotations

import argparse
import sys

from sysml_run import explainview


def run(options: argparse.Namespace) -> int:
    """Print one key, one section, or every section. Raises UsageError."""
    sys.stdout.write(explainview.text(options.key))
    return 0
