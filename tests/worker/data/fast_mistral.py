"""Mistral's own tokenizers, as mistral-common ships them, made into the fast ones that models are published with."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mistral_common

DATA = Path(mistral_common.__file__).parent / "data"
SENTENCEPIECE = {
    1: DATA / "tokenizer.model.v1",
    3: DATA / "mistral_instruct_tokenizer_240323.model.v3",
    7: DATA / "mistral_instruct_tokenizer_241114.model.v7",
}
TEKKEN = {3: DATA / "tekken_240718.json"}


def fast(tokens: Any) -> Any:
    """The tokenizer with `<s>` in front of every text, as all of Mistral's have it."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def from_sentencepiece(path: Path, spaces: str) -> Any:
    """`spaces`: `first` marks the start of a text as the start of a word, `legacy` that of every piece of it."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    words = [model.id_to_piece(number) for number in range(model.vocab_size())]
    special = [word for n, word in enumerate(words) if model.is_control(n) or model.is_unknown(n)]
    apart = {*special, *(word for n, word in enumerate(words) if model.is_byte(n))}
    ids = {word: number for number, word in enumerate(words) if word not in apart}
    ranked = sorted((-model.get_score(ids[a + b]), len(a), len(b), a, b) for a, b in splits(ids))
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [(a, b) for *_, a, b in ranked]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if spaces == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    return fast(made)


def from_tekken(path: Path, special: list[str]) -> Any:
    """Byte-level BPE; the special tokens come first, `special` in place of the first of them."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    value = json.loads(path.read_text(encoding="utf-8"))
    room = value["config"]["default_num_special_tokens"]
    known = value["vocab"][: value["config"]["default_vocab_size"] - room]
    letters = as_letters()
    words = ["".join(letters[byte] for byte in base64.b64decode(entry["token_bytes"])) for entry in known]
    ids = {word: number + room for number, word in enumerate(words)}
    ranked = sorted((ids[a + b], ids[a], ids[b], a, b) for a, b in splits(ids))
    control = [*special, *(f"<SPECIAL_{n}>" for n in range(len(special), room))]
    vocabulary = {word: n for n, word in enumerate(control)} | ids
    made = Tokenizer(models.BPE(vocabulary, [(a, b) for *_, a, b in ranked], ignore_merges=True))
    pattern = pre_tokenizers.Split(Regex(value["config"]["pattern"]), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([pattern, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    return fast(made)


def splits(ids: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every way to make a word of the vocabulary from two others."""
    for word in ids:
        for at in range(1, len(word)):
            if word[:at] in ids and word[at:] in ids:
                yield word[:at], word[at:]


def as_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte (Radford et al., 2019)."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + n) for n, byte in enumerate(others)}
