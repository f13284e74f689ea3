"""What goes along with a model: joins pieces, refuses damaged ones, and loads through transformers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sysml_run import handed, manifest, pieces, verification
from sysml_run.handed import join


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    folder = tmp_path / "cut"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "large").write_bytes(bytes(range(250)) * 4)
    (folder / "small").write_text("small")
    manifest.write(folder, {"name": "x"})
    assert pieces.cut(folder, 100) == ["inner/large"], "the lists stay whole, however long"
    return folder


def test_nothing_large_nothing_cut(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("small")
    assert pieces.cut(tmp_path, 400) == []
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_pieces_are_joined_once(cut: Path, tmp_path: Path) -> None:
    whole = join.whole(cut, tmp_path / "cache")
    assert verification.verify(whole) == []
    assert (whole / "inner" / "large").read_bytes() == bytes(range(250)) * 4
    before = (whole / "small").stat().st_mtime_ns
    assert join.whole(cut, tmp_path / "cache") == whole
    assert (whole / "small").stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["flip", "shorten", "swap"])
def test_damaged_pieces_leave_nothing(cut: Path, tmp_path: Path, change: str) -> None:
    first, second, *_ = sorted((cut / "inner").glob("large.piece-*"))
    if change == "flip":
        first.write_bytes(b"\x01" + first.read_bytes()[1:])
    elif change == "shorten":
        os.truncate(second, 10)
    else:
        first.rename(cut / "x")
        second.rename(first)
        (cut / "x").rename(second)
    with pytest.raises(ValueError, match="the pieces of large are not as they were cut"):
        join.whole(cut, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_in_pieces_is_joined_in_the_cache(cut: Path, tmp_path: Path) -> None:
    module = tmp_path / "there" / "mine"
    shutil.copytree(Path(handed.__file__).parent, module, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.move(cut, module / "model")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "there"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "import mine; print(mine.path()); print(mine.card()['name'], mine.gguf())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    folder, rest = done.stdout.splitlines()
    assert Path(folder).parent == tmp_path / "cache" / "sysml-run" / "joined"
    assert rest == "x []"


def test_of_several_models_one_is_loaded(tmp_path: Path) -> None:
    """Real ones of a few numbers, by name."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    module = tmp_path / "there" / "mine"
    shutil.copytree(Path(handed.__file__).parent, module, ignore=shutil.ignore_patterns("__pycache__"))
    sizes = {"intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    for name, width in (("one", 8), ("two", 16)):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=1, hidden_size=width, **sizes))
        model.save_pretrained(module / "model" / name)
        tokenizer.save_pretrained(module / "model" / name)
    manifest.write(module / "model", {"packages": ["one", "two"]})
    code = "import sys, mine; print(mine.load(*sys.argv[1:])[0].config.hidden_size)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "there")}

    def load(*names: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *names], env=env, capture_output=True, text=True)

    assert load("two").stdout == "16\n"
    assert load().stderr.endswith("ValueError: name one of 'one', 'two'\n")
    manifest.write(module / "model", {})
    assert load("two").stderr.endswith("ValueError: there is one model alone\n")
