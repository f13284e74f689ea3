"""The prompt templates that have a name: a file each, and the special tokens it spells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run.errors import DataError
from sysml_run.templates import FOLDER, NAMES

from . import mistral
from .begin import ids

NEEDS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}


@dataclass(frozen=True)
class Named:
    """`text` is a whole chat template for one tokenizer; `name` adds the format's version, which is 0 without one."""

    name: str
    version: int
    text: str


def title(template: str, folder: Path) -> str:
    """What records call the template, as `Chat.name` does, without importing transformers.

    `folder` has the tokenizer's files; of one without tokenizer.json Mistral's version is left out.
    """
    if template == "mistral" and (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        return f"mistral v{mistral.version(Tokenizer.from_file(str(folder / 'tokenizer.json')))}"
    return template if template in (*NAMES, "tokenizer") else "inline"


def load(tokenizer: Any, name: str) -> Named:
    """DataError where the tokenizer lacks a special token of the template, which it would read as ordinary text."""
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    number = mistral.version(tokenizer) if name == "mistral" else 0
    check(tokenizer, name, mistral.NEEDS.get(number) or NEEDS.get(name, ()))
    if number:
        return Named(f"{name} v{number}", number, mistral.header(tokenizer) + text)
    return Named(name, number, text)


def check(tokenizer: Any, name: str, needed: Sequence[str]) -> None:
    absent = [token for token in needed if len(ids(tokenizer, token)) != 1 or token not in tokenizer.get_vocab()]
    if absent:
        message = f"prompt.template {name}: the tokenizer has no {', '.join(absent)} and would read them as letters"
        raise DataError(message, "write template: tokenizer, or alpaca or none, which need no special tokens")
