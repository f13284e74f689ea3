"""A small byte-level tokenizer with a ChatML template, made on the spot, and recipes that use it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import document, resolve
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that holds a tokenizer and no weights; `<|im_end|>` ends a turn and is the padding token too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(
        ['{"severity":"high","risk_score":70} process on port 22\n\n assistant user system'] * 9, trainer
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHATML
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture
def tokenizer(tokenizer_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture
def make_recipe(tokenizer_folder: Path) -> Callable[..., Recipe]:
    """A resolved recipe from sections as plain values; `datasets` is the one thing it needs."""

    def make(**sections: Any) -> Recipe:
        values = {
            "version": 1,
            "name": "test",
            "model": {"base_model": str(tokenizer_folder)},
            "split": {"validation": 0.2},
            "prompt": {"sequence_len": 512},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "training": {"num_epochs": 1, "micro_batch_size": 2, "gradient_accumulation_steps": 1},
        }
        return resolve.resolve(document.parse(json.dumps(values | sections), "recipe.yaml")).recipe

    return make


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    path = tmp_path / "run"
    path.mkdir()
    return RunDir(path)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sysml-run"
