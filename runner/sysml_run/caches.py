"""Where this machine keeps what is made once and what came from the hub; the hub's token and its switch."""

from __future__ import annotations

import os
from pathlib import Path

TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its switches
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
OTHER_TOKENS = ("HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")  # which the hub's library does not look at
TOKENS = ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", *OTHER_TOKENS)


def cache_dir() -> Path:
    """Where converted models and prepared data are kept: XDG_CACHE_HOME, else ~/.cache, + `sysml-run`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sysml-run"


def hub_cache() -> Path:
    """HF_HUB_CACHE, else `hub` in HF_HOME, else in ~/.cache/huggingface (XDG_CACHE_HOME)."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or _hub_home() / "hub").expanduser()


def offline() -> str | None:
    """The switch that keeps the hub's library off the network, if one is on; the first that is set counts."""
    name = next((name for name in SWITCHES if os.environ.get(name)), None)
    return name if name and os.environ[name].upper() in TRUE else None


def token_source() -> str | None:
    """Where the token of the hub comes from, in its library's order with other names of variables before its file."""
    named = next((name for name in TOKENS if os.environ.get(name, "").strip()), None)
    file = Path(os.environ.get("HF_TOKEN_PATH") or _hub_home() / "token").expanduser()
    return named or (str(file) if file.is_file() and file.stat().st_size else None)


def hand_token() -> None:
    """Let the hub's library find a token that stands under another name: as HF_TOKEN of this process alone."""
    source = token_source()
    if source in OTHER_TOKENS:
        os.environ["HF_TOKEN"] = os.environ[source]


def snapshot(name: str, revision: str | None) -> Path | None:
    """The files of a hub repository at a revision (main), in the layout of huggingface_hub's cache."""
    repository = hub_cache() / f"models--{name.replace('/', '--')}"
    ref = repository / "refs" / (revision or "main")
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision or "main"
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def _hub_home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface")
