"""From `model` to files and objects: finds, converts or makes the base model and its tokenizer as ordinary folders."""

from __future__ import annotations

import fcntl
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sysml_run.datafiles import sha256
from sysml_run.errors import StageError
from sysml_run.modelfiles import CODE_VERSION, digest, made, tokenizer_name
from sysml_run.modelref import locate
from sysml_run.recipe import Recipe
from sysml_run.rundir import whole_folder, write_json

from . import gguf_files, kbit, tiny


def model_dir(recipe: Recipe) -> Path:
    """An ordinary Hugging Face folder with config and safetensors of the base model."""
    ref = locate(recipe.model.base_model)
    match ref.kind:
        case "folder":
            return ref.path
        case "hub":
            return snapshot(ref.where, recipe.model.revision, weights=True)
        case "gguf":
            name = f"{sha256(ref.path)[:16]}-{recipe.model.dtype}"
            return cached(name, lambda folder: gguf_files.convert_model(ref.path, folder, recipe.model.dtype))
        case "tiny":
            words = tokenizer_dir(recipe)
            name = f"tiny-{ref.where}-{digest(words)[:16]}"
            return cached(name, lambda folder: tiny.make_model(ref.where, words, folder))


def tokenizer_dir(recipe: Recipe) -> Path:
    """A folder with the tokenizer's files; once made it is found again without importing torch."""
    ref = locate(recipe.model.tokenizer or recipe.model.base_model)
    match ref.kind:
        case "folder":
            return ref.path
        case "hub":
            revision = recipe.model.revision if recipe.model.tokenizer is None else None
            return snapshot(ref.where, revision, weights=False)
        case "gguf":
            return cached(tokenizer_name(ref), lambda folder: gguf_files.convert_tokenizer(ref.path, folder))
        case "tiny":
            return cached(tokenizer_name(ref), tiny.make_tokenizer)


def load_tokenizer(recipe: Recipe) -> Any:
    """The base model's tokenizer, with a padding token (the end token where it has none)."""
    from transformers import AutoTokenizer

    folder = tokenizer_dir(recipe)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=recipe.model.trust_remote_code)
    if tokenizer.eos_token is None:
        raise StageError(f"the tokenizer in {folder} has no end token", "name another with model.tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def over_cards(recipe: Recipe) -> dict[str, Any]:
    """What `from_pretrained` is told by a stage that is one process: with cards, lay the layers over all of them."""
    return {"device_map": "auto"} if recipe.hardware.accelerator == "gpu" else {}


def load_base(recipe: Recipe, dtype: str, **more: Any) -> Any:
    """The base model as training holds it: in the bits of `quantization.load`, what is not quantized in `dtype`."""
    model = load_model(model_dir(recipe), recipe, dtype, **more | kbit.arguments(recipe))
    return kbit.prepare(model) if recipe.quantization.load else model


def attention(recipe: Recipe, dtype: str, *, on_card: bool) -> str:
    """The recipe's, except for flash attention where it cannot run: it is for cards, and for weights of 16 bits."""
    named = recipe.model.attn_implementation
    unfit = named == "flash_attention_2" and (dtype == "float32" or not on_card)
    return "sdpa" if unfit else named


def load_model(folder: Path, recipe: Recipe, dtype: str, *, training: bool = False, **more: Any) -> Any:
    """The weights in `folder` as a causal language model; StageError when a weight is missing from the files.

    In training autocast gives flash attention its 16 bits, and the trainer moves the model to the card.
    transformers fills a missing weight with random numbers and only prints a table; a run must not start on those.
    """
    import torch
    from transformers import AutoModelForCausalLM

    on_card = torch.cuda.is_available() and more.get("device_map") is not None
    named = recipe.model.attn_implementation if training else attention(recipe, dtype, on_card=on_card)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        attn_implementation=None if named == "auto" else named,
        trust_remote_code=recipe.model.trust_remote_code,
        output_loading_info=True,
        **more,
    )
    gguf_files.refuse_missing(info, folder)
    return model


def base_facts(recipe: Recipe) -> dict[str, Any]:
    """Name, revision, licence and weight digest of the base model, for the model card and the record."""
    ref = locate(recipe.model.base_model)
    facts: dict[str, Any] = {"base_model": recipe.model.base_model, "kind": ref.kind, "license": None}
    if ref.kind == "gguf":
        facts |= {"sha256": sha256(ref.path), **gguf_files.facts(ref.path)}
    elif ref.kind != "tiny":
        folder = model_dir(recipe)
        facts |= {"license": card_license(folder), "revision": folder.name if ref.kind == "hub" else None}
    return facts


def card_license(folder: Path) -> str | None:
    """The `license` line in the front matter of the folder's README.md, if there is one."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    front = itertools.takewhile(lambda line: line != "---", lines[1:]) if lines[:1] == ["---"] else ()
    named = (line.partition(":")[2].strip(" \"'") for line in front if line.startswith("license:"))
    return next(named, None) or None


def snapshot(name: str, revision: str | None, *, weights: bool) -> Path:
    """Download (or find in the hub cache) a model's files; never pickled weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.jinja", "*.model", "*.txt", "README.md"] + (["*.safetensors"] if weights else [])
    page = f"https://huggingface.co/{name}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise StageError(f"{name} is gated", f"ask for access at {page} and set HF_TOKEN") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        hint = f"download it once where there is a network, or name a local folder with model.base_model ({page})"
        raise StageError(f"{name} is not in the hub cache and could not be downloaded", hint) from error


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The cache folder `name`, made whole-or-nothing the first time; other runs wait for the one that makes it."""
    folder = made(name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        with whole_folder(folder) as staging:
            make(staging)
            write_json(staging / "made.json", {"name": name, "code_version": CODE_VERSION})
    return folder
