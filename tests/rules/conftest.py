"""A recipe with which nothing is wrong, and the rules asked of it with changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sysml_run import caches, document, overrides, rules, validate
from sysml_run.errors import Problem
from sysml_run.resolve import resolve

MINIMAL = """\
version: 1
name: minimal
model: {base_model: tiny:llama}
datasets:
  - path: rows.jsonl
    type: messages
optimizer: {name: adamw, learning_rate: 2e-4}
training: {num_epochs: 1}
"""
HUB = (*caches.TOKENS, "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")

Check = Callable[..., list[Problem]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HF_HOME, and no other word of the hub in the environment."""
    for name in HUB:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def check(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)

    def run(*assignments: str, running: bool = False) -> list[Problem]:
        """Problems of the recipe after --set ASSIGNMENTS, without those of what is not built yet."""
        base = document.parse(MINIMAL, str(tmp_path / "r.yaml"))
        read = overrides.apply(base, assignments)
        assert validate.check(read) == []
        found = rules.check(resolve(read).recipe, read, running=running)
        return [problem for problem in found if "is not built in this version" not in problem.message]

    return run
