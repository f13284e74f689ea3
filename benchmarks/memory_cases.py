"""Published measurements of memory: a file of the form `memory_cases/1`, read and checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORM = "memory_cases/1"
NUMBER, WORDS, ANY = (int, float), (str,), (str, int, float, bool, type(None))
KEYS: Mapping[str, tuple[type, ...]] = {
    "id": WORDS,
    "source": WORDS,
    "model_id": WORDS,
    "architecture": (dict,),
    "method": WORDS,
    "lora": (dict, type(None)),
    "precision": WORDS,
    "optimizer": WORDS,
    "seq_len": (int, type(None)),
    "micro_batch": (int, type(None)),
    "grad_accum": (int, type(None)),
    "grad_ckpt": ANY,
    "attention_impl": (str, type(None)),
    "lm_head_loss": (str, type(None)),
    "compile": (bool, type(None)),
    "zero_stage": (int, type(None)),
    "offload": (str, type(None)),
    "num_devices": (int, type(None)),
    "hardware": (str, type(None)),
    "reported_bytes": NUMBER,
    "rounding_or_reading_error_bytes": (*NUMBER, type(None)),
    "what_is_reported": WORDS,
    "tier": WORDS,
    "scoreable": (bool,),
    "core": (bool,),
    "ambiguity": WORDS,
}
SIZES: Mapping[str, str] = {  # the file's name of a size, and config.json's
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
    "num_experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "tied_embeddings": "tie_word_embeddings",
}


class UnusableError(Exception):
    """The file is not of the form; one line for each thing that is wrong with it."""


class Case(dict[str, Any]):
    """One measurement with the file's own keys; `extra` is always there."""

    @property
    def text(self) -> str:
        """All words about it, in lower case."""
        return f"{self['source']} {self['ambiguity']} {self['extra'].get('note', '')}".lower()

    @property
    def parameters(self) -> int:
        return int(self["architecture"]["params"])

    @property
    def devices(self) -> int:
        return self["num_devices"] or 1


def read(path: Path) -> list[Case]:
    """The cases that are to be scored. Raises UnusableError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != FORM:
        raise UnusableError(f'{path}: "schema" is not "{FORM}" at the top')
    listed = found.get("cases")
    if not isinstance(listed, list) or not listed:
        raise UnusableError(f'{path}: "cases" is no list of measurements')
    wrong = [f"{path}: {_name(place, case)}: {words}" for place, case in enumerate(listed) for words in _wrong(case)]
    if wrong:
        raise UnusableError("\n".join(wrong))
    return [Case(case | {"extra": case.get("extra") or {}}) for case in listed if case["scoreable"]]


def _name(place: int, case: Any) -> str:
    named = case.get("id") if isinstance(case, dict) else None
    return f"cases[{place}] ({named})" if named else f"cases[{place}]"


def _wrong(case: Any) -> Iterator[str]:
    if not isinstance(case, dict):
        yield "is no object"
        return
    for key, kinds in KEYS.items():
        if key not in case:
            yield f'"{key}" is missing'
        elif not isinstance(case[key], kinds):
            yield f'"{key}" is {case[key]!r}'
    if isinstance(case.get("reported_bytes"), NUMBER) and case["reported_bytes"] <= 0:
        yield '"reported_bytes" is not above 0'
    if isinstance(case.get("lora"), dict) and not {"rank", "targets"} <= case["lora"].keys():
        yield '"lora" has no "rank" or no "targets"'
    if isinstance(case.get("architecture"), dict):
        yield from _wrong_sizes(case["architecture"])


def _wrong_sizes(sizes: Mapping[str, Any]) -> Iterator[str]:
    """The number of parameters is enough; of the sizes there are all or none."""
    if type(sizes.get("params")) is not int:
        yield '"architecture.params" is no whole number'
    if "num_layers" in sizes:
        yield from (f'"architecture.{name}" is missing' for name in SIZES if name not in sizes)
        yield from (f'"architecture.{name}" is {sizes[name]!r}' for name in SIZES if not _whole(sizes.get(name, 0)))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
