"""Tiny random models and their tokenizer, made on the spot: what `tiny:ARCHITECTURE` and --smoke train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sysml_run.resources import samples

VOCABULARY = 1024
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def corpus() -> Iterator[str]:
    """Lines of the shipped sample rows, which the tokenizer's merges are learned from."""
    for file in sorted(samples().glob("*.jsonl")):
        yield from file.read_text(encoding="utf-8").splitlines()


def corpus_digest() -> str:
    return hashlib.sha256("\n".join([CHATML, str(VOCABULARY), *corpus()]).encode()).hexdigest()


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
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2} if architecture == "mixtral" else {}
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        max_position_embeddings=4096,
        **sizes,
        **experts,
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
