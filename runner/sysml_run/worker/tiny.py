"""Tiny random models and their tokenizer, made on the spot: what `tiny:ARCHITECTURE` and --smoke train on."""

from __future__ import annotations

from pathlib import Path

from sysml_run.architecture import tiny
from sysml_run.modelfiles import CHATML, corpus
from sysml_run.modelref import VOCABULARY


def make_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE of at most 1024 tokens with a ChatML template; `<|im_end|>` ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=special[0], eos_token=special[2], pad_token=special[0], chat_template=CHATML
    )
    tokenizer.save_pretrained(folder)


def make_model(architecture: str, tokenizer_dir: Path, folder: Path) -> None:
    """Save a two-layer random model (hidden 64; 4 experts, 2 active for mixtral) that fits the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **tiny(architecture), **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
