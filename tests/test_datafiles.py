"""Which files a dataset's path means; tests/worker/test_prepare.py reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sysml_run import datafiles, document
from sysml_run.errors import DataError
from sysml_run.recipe import Dataset
from sysml_run.resolve import resolve

RECIPE = """\
version: 1
name: one
model: {{base_model: tiny:llama}}
datasets: [{{path: "{path}", type: messages}}]
optimizer: {{name: adamw, learning_rate: 1e-3}}
training: {{num_epochs: 1}}
"""


def dataset(path: str, folder: Path) -> Dataset:
    return resolve(document.parse(RECIPE.format(path=path), str(folder / "one.yaml"))).recipe.datasets[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jsonl", "in/a.jsonl", "in/c.csv", ".hidden/d.jsonl", ".e.jsonl"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("rows/b.jsonl", ["b.jsonl"]),
        ("rows", ["b.jsonl", "in/a.jsonl", "in/c.csv"]),
        ("rows/*.jsonl", ["b.jsonl"]),
        ("rows/**/*.jsonl", ["b.jsonl", "in/a.jsonl"]),
        ("rows/i*/c.csv", ["in/c.csv"]),
    ],
)
def test_files(folder: Path, path: str, names: list[str]) -> None:
    found = datafiles.find(dataset(path, folder))
    assert [source.name for source in found] == names
    for source in found:
        content = source.path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert source.facts() == {"name": source.name, "size": len(content), "sha256": digest}


@pytest.mark.parametrize(
    ("path", "words"),
    [("absent", "no data at"), ("rows/*.txt", "no data at"), ("hub:a/b", "hub:a/b is not on this machine")],
)
def test_none(folder: Path, path: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        datafiles.find(dataset(path, folder))
