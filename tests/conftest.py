"""Shared by all tests: golden files, and documents made on the spot."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
collect_ignore = [] if importlib.util.find_spec("torch_xla") else ["tpu"]  # `make test-tpu` has an environment for it

for name in ("gptqmodel", "torchao"):  # PEFT would load both beside the first adapter: seconds, and warnings
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--remake", action="store_true", help="write the golden files anew instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a file, or write the file when the run was started with --remake."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--remake"):
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing; make it with: pytest {request.node.nodeid} --remake"
        assert text == path.read_text(encoding="utf-8"), f"pytest {request.node.nodeid} --remake writes it anew"

    return compare
