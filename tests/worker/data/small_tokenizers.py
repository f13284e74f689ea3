"""Small tokenizers of the kinds that models are published with, trained on the spot."""

from typing import Any

CORPUS = [
    '{"severity":"high","risk_score":70} process on port 22\n\n assistant user system ### Response:\n A: yes no'
] * 9
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
METASPACE = ["<s>", "</s>"]


def byte_level(special: list[str], end: str, *, begins: bool) -> Any:
    """As GPT-2 and Llama 3 have it; `begins`: the first special token stands in front of every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return wrapped(made, special[0], end, begins=begins)


def metaspace(spaces: str) -> Any:
    """As Llama 2 and Mistral have it: a word begins where a text does (`first`) or any piece of it (`legacy`)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(unk_token=None, byte_fallback=True))
    marked = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    words = pre_tokenizers.Sequence([marked, pre_tokenizers.Split("▁", "merged_with_next")])
    made.pre_tokenizer = words
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[*METASPACE, *pieces], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    made = without_added(made, pieces)
    if spaces == "first":
        made.pre_tokenizer = marked
    else:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in METASPACE])
    return wrapped(made, "<s>", "</s>", begins=True)


def without_added(tokens: Any, words: list[str]) -> Any:
    """A new tokenizer with the same vocabulary and merges, in which nothing is added: bytes must not match text."""
    import json

    from tokenizers import Tokenizer, models

    model = json.loads(tokens.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return Tokenizer(models.BPE(model["vocab"], merges, byte_fallback=True, fuse_unk=False))


def wrapped(tokens: Any, begin: str, end: str, *, begins: bool) -> Any:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if begins:
        tokens.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A",
            pair=f"{begin} $A {begin} $B",
            special_tokens=[(begin, tokens.token_to_id(begin))],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token=begin, eos_token=end, pad_token=end)
