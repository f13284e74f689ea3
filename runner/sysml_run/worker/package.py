"""The package stage: a folder that someone else loads offline, with card, recipe, figures and checksums."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sysml_run import copies, exports, manifest, verification
from sysml_run.errors import StageError
from sysml_run.modelref import ADAPTER, HUB_ID
from sysml_run.recipe import Recipe
from sysml_run.rundir import PARTIAL, RunDir, read_json, whole_folder, write_json, write_text

from . import asrun, card, modelfile, outcome, weights
from .data import store
from .data.chat import Chat
from .outcome import Outcome

KEPT = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "*.model"),
    *("LICENSE*", "NOTICE*"),
)
ROW_KEYS = ("example",)  # of the data report: text of a training row, which is not ours to hand on


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `package/`, and a copy of it at `artifacts.dir`. Raises StageError for what cannot be packed or written."""
    target = destination(recipe)
    source, found = model_folder(recipe, rundir), outcome.read(rundir)
    files = weights.read(source)
    with writable(rundir.package), whole_folder(rundir.package) as folder:
        split = weights.place(files, folder, weights.limit(recipe.artifacts.max_shard_size))
        left_out = copy_others(recipe, source, folder)
        tokenizer = make_ready(recipe, rundir, folder)
        copy_adapter(recipe, rundir, found, folder)
        copy_quantized(recipe, rundir, folder, tokenizer)
        papers(recipe, rundir, found, folder)
        made = manifest.write(folder, facts(found, folder))
    size = sum(entry["bytes"] for entry in made["files"].values())
    print(f"package: {len(made['files']) + 2} files, {size / 1e6:.1f} MB", flush=True)
    if target is not None:
        hand_over(rundir.package, target)
    return {
        "files": len(made["files"]) + 2,
        "bytes": size,
        "weights_from": source.name,
        "weights_split_anew": split,
        "left_out": left_out,
        "published": None if target is None else str(target),
    }


def model_folder(recipe: Recipe, rundir: RunDir) -> Path:
    """Where the weights to pack are: merged with an adapter, else as trained. Raises StageError."""
    folder, stage = (rundir.model, "train") if recipe.lora is None else (rundir.merged, "merge")
    if not folder.is_dir():
        raise StageError(f"{folder} is not there yet", f"run the {stage} stage first")
    return folder


def destination(recipe: Recipe) -> Path | None:
    """Where the package is published, relative to the current folder. Raises StageError if something else is there."""
    if recipe.artifacts.dir is None:
        return None
    try:
        target = Path(recipe.artifacts.dir).expanduser().resolve()
    except RuntimeError as error:  # ~NAME of no user
        raise StageError(f"artifacts.dir: {error}", "write the folder out") from error
    reason = verification.refusal(target)
    if reason:
        hint = "move it away, or name another folder with artifacts.dir; only a package of ours is replaced"
        raise StageError(f"{target} is not overwritten: {reason}", hint)
    return target


def copy_others(recipe: Recipe, source: Path, folder: Path) -> list[str]:
    """Copy configuration and tokenizer; gives the names of what has no place in a package."""
    wanted = (*KEPT, "*.py") if recipe.model.trust_remote_code else KEPT
    left_out = []
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in wanted):
            copies.clone(path, folder / path.name)
        elif path.suffix != weights.SAFE and path.name != weights.INDEX:
            left_out.append(path.name)
    return left_out


def copy_adapter(recipe: Recipe, rundir: RunDir, found: Outcome, folder: Path) -> None:
    """What was trained, for those who have the base already; it names the base and not where it lay."""
    if recipe.lora is None or not (rundir.model / ADAPTER).is_file():
        return
    (folder / "adapter").mkdir()
    for file in weights.read(rundir.model):
        copies.clone(file.path, folder / "adapter" / file.path.name)
    known = read_json(rundir.model / ADAPTER)
    own = str(known.get("base_model_name_or_path") or "")
    base = own if recipe.model.trained and HUB_ID.fullmatch(own) else found.base_name  # its maker's word, if it has one
    write_json(folder / "adapter" / ADAPTER, known | {"base_model_name_or_path": base})


def copy_quantized(recipe: Recipe, rundir: RunDir, folder: Path, tokenizer: Any) -> None:
    """The quantized copies, each in the folder that the run has it in; beside a GGUF file Ollama's Modelfile."""
    for source in quantized(recipe, rundir):
        pickled = sorted(path.name for path in source.rglob("*") if path.suffix in weights.PICKLED)
        if pickled:
            raise StageError(f"{source} holds pickled files, which are not packed: {', '.join(pickled)}")
        target = folder / "quantized" / source.name
        copies.clone_folder(source, target)
        for path in sorted(target.glob("*.json")):
            for key in ("_name_or_path", "name_or_path"):
                without(path, key)
        ends = tokenizer.convert_ids_to_tokens(store.end_ids(rundir, tokenizer))
        for path in sorted(target.glob("*.gguf")):
            system = card.fixed_system(recipe)
            text = modelfile.make(tokenizer, path.name, recipe.prompt.sequence_len, ends, system)
            write_text(target / "Modelfile", text)


def quantized(recipe: Recipe, rundir: RunDir) -> list[Path]:
    """The folders of the copies that the recipe asks for and the run has proven. Raises StageError."""
    folders = [rundir / "quantized" / exports.name(export) for export in recipe.quantization.export]
    absent = [folder for folder in folders if not folder.is_dir()]
    if absent or (folders and not rundir.done("quantize")):
        raise StageError(f"{(absent or folders)[0]} is not there yet", "run the quantize stage first")
    return folders


def make_ready(recipe: Recipe, rundir: RunDir, folder: Path) -> Any:
    """Whoever loads the folder prompts and stops as training did; nothing in it names a folder of this machine.

    Gives the tokenizer that is in it.
    """
    without(folder / "config.json", "_name_or_path")
    without(folder / "tokenizer_config.json", "name_or_path")
    tokenizer = loaded(recipe, folder)
    if recipe.prompt.template != "tokenizer":
        write_text(folder / "chat_template.jinja", Chat(tokenizer, recipe.prompt.template).published())
        without(folder / "tokenizer_config.json", "chat_template")
    set_end(rundir, folder, tokenizer)
    return loaded(recipe, folder)


def loaded(recipe: Recipe, folder: Path) -> Any:
    """The tokenizer in the folder. Raises StageError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=recipe.model.trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StageError(f"no tokenizer came with the weights: {reason}", "run the stage before this again") from error


def set_end(rundir: RunDir, folder: Path, tokenizer: Any) -> None:
    """Generation ends where trained answers ended, beside the end tokens the model has of its own."""
    path, pad = folder / "generation_config.json", tokenizer.pad_token_id
    end, *more = store.end_ids(rundir, tokenizer)
    known = read_json(path) if path.is_file() else {}
    known.pop("_from_model_config", None)  # with it, transformers would make these settings anew from config.json
    own = known.get("eos_token_id", [])
    own = [*more, *(own if isinstance(own, list) else [own])]
    others = [one for one in dict.fromkeys(own) if one not in (end, None)]
    write_json(
        path, known | {"eos_token_id": [end, *others] if others else end, "pad_token_id": end if pad is None else pad}
    )


def without(path: Path, key: str) -> None:
    """Remove a key of a JSON file, if both are there."""
    known = read_json(path) if path.is_file() else {}
    if key in known:
        write_json(path, {name: value for name, value in known.items() if name != key})


def papers(recipe: Recipe, rundir: RunDir, found: Outcome, folder: Path) -> None:
    """The recipe as run, what was measured, what the data was, and the model card."""
    values = asrun.values(found.values)
    write_text(folder / "recipe.yaml", asrun.written(values))
    write_json(folder / "recipe.json", {"values": values, "sources": asrun.sources(dict(found.sources))})
    if found.evaluation:
        write_json(folder / "evaluation.json", found.evaluation)
    if found.data:
        write_json(folder / "data.json", {key: value for key, value in found.data.items() if key not in ROW_KEYS})
    write_text(folder / "README.md", card.make(recipe, found, folder))


def facts(found: Outcome, folder: Path) -> dict[str, Any]:
    """What the manifest says beside the checksums; times and versions are the run's own."""
    return {
        "name": found.values["name"],
        "description": found.values["description"],
        "created": found.train.get("started"),
        "base_model": manifest.base(found.base, found.base_name),
        "data": manifest.data(found.records.get("prepare", {})),
        "rows": {name: found.rows(name) for name in ("train", "validation", "test")},
        "recipe_sha256": manifest.sha256(folder / "recipe.json"),
        "versions": found.train.get("versions") or manifest.versions(),
    }


def hand_over(package: Path, target: Path) -> None:
    """Publish a copy, read back before it takes its name. Raises StageError."""
    with writable(target):
        for left in target.parent.glob(f"{PARTIAL}{target.name}-*"):
            shutil.rmtree(left)
        with whole_folder(target) as folder:
            copies.clone_folder(package, folder)
            problems = verification.verify(folder)
            if problems:
                raise StageError(f"the copy at {target} is not the package: {problems[0]}", "look at the disk")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """A full or closed disk as a StageError."""
    try:
        yield
    except OSError as error:
        hint = "make room, or name another folder with artifacts.dir or --runs"
        raise StageError(f"{path} cannot be written: {error.strerror or error}", hint) from error
