"""Asking every rule costs next to nothing beside starting Python."""

from __future__ import annotations

import time

import pytest

from sysml_run import architecture, document, resources, rules
from sysml_run.resolve import resolve


@pytest.mark.parametrize("path", sorted(resources.recipes().glob("*.yaml")), ids=lambda path: path.stem)
def test_rules_cost_little(path, hub) -> None:
    """Seconds of processor time: under 0.001 here, once the catalogue is read; the limit leaves room."""
    read = document.load(path)
    recipe = resolve(read).recipe
    architecture.catalogue()
    spent = []
    for _ in range(5):
        start = time.process_time()
        rules.check(recipe, read, running=False)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.005
