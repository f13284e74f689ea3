"""Where a tokenizer's files lie, found without making or downloading them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sysml_run import caches, document, modelfiles
from sysml_run.modelref import locate
from sysml_run.recipe import Recipe
from sysml_run.resolve import resolve

Make = Callable[..., Recipe]
RECIPE = """\
version: 1
name: one
model: {{base_model: {base}, tokenizer: {tokenizer}, revision: {revision}}}
datasets: [{{path: rows.jsonl, type: messages}}]
optimizer: {{name: adamw, learning_rate: 1e-3}}
training: {{num_epochs: 1}}
"""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(base: str, tokenizer: str = "null", revision: str = "null") -> Recipe:
        text = RECIPE.format(base=base, tokenizer=tokenizer, revision=revision)
        return resolve(document.parse(text, str(tmp_path / "one.yaml"))).recipe

    return made


def hub(cache: Path, name: str, commit: str, branch: str = "main") -> Path:
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / branch).write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    return repository / "snapshots" / commit


def test_the_hub_cache(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    older, newer = hub(tmp_path, "a/b", "1" * 40, "old"), hub(tmp_path, "a/b", "2" * 40)
    words = hub(tmp_path, "c/d", "3" * 40)
    assert modelfiles.tokenizer(make("a/b")) == newer
    assert modelfiles.tokenizer(make("a/b", revision="old")) == older
    assert modelfiles.tokenizer(make("a/b", revision='"' + "1" * 40 + '"')) == older
    assert modelfiles.tokenizer(make("a/b", "c/d", "old")) == words
    assert modelfiles.tokenizer(make("a/b", revision="absent")) is None
    assert modelfiles.tokenizer(make("e/f")) is None
    shutil.rmtree(newer)
    assert modelfiles.tokenizer(make("a/b")) is None


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HOME": "/e"}, "/e/.cache/huggingface/hub"),
        ({"HF_HOME": "~/f", "HOME": "/e"}, "/e/f/hub"),
    ],
)
def test_where_the_hub_cache_is(variables: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert caches.hub_cache() == Path(wanted)


def test_folders_and_what_the_cache_holds(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model.gguf").write_text("GGUF")
    assert modelfiles.tokenizer(make("./model")) == tmp_path / "model"
    for name in ("./model.gguf", "tiny:llama"):
        recipe = make(name)
        assert modelfiles.tokenizer(recipe) is None
        folder = modelfiles.made(modelfiles.tokenizer_name(locate(recipe.model.base_model)))
        assert folder.parent == tmp_path / "sysml-run/models"
        folder.mkdir(parents=True)
        assert modelfiles.tokenizer(recipe) == folder


def test_the_digest_is_of_what_shapes_tokens(tmp_path: Path) -> None:
    empty = modelfiles.digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert modelfiles.digest(tmp_path) == empty
    (tmp_path / "tokenizer.model").write_text("words")
    assert modelfiles.digest(tmp_path) != empty
