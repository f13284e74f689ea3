"""Instead of training: a model trained elsewhere takes the place in the run that a trained one has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sysml_run import copies, counts, manifest
from sysml_run.errors import StageError
from sysml_run.modelref import ADAPTER, HUB_ID, is_adapter
from sysml_run.recipe import Lora, Recipe
from sysml_run.rundir import RunDir, read_json, whole_folder

from . import models, weights

ADAPTER_WEIGHTS = "adapter_model.safetensors"
OWN = ("rank_pattern", "alpha_pattern", "layers_to_transform")  # of PEFT too: what some layers have of their own
SETTINGS = ("r", "lora_alpha", "use_rslora", "use_dora")  # of PEFT, which the recipe names too


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `model/`, a copy. Raises StageError for what the recipe does not describe, or what is no such model."""
    name = str(recipe.model.trained)
    source = folder(recipe, name)
    held = read_json(source / ADAPTER) if (source / ADAPTER).is_file() else None
    agree(recipe.lora, held, name)
    notes = [] if held is None else [*same_base(recipe, held, name), *same_layers(recipe, held, name)]
    tokenizer = models.load_tokenizer(recipe)
    with whole_folder(rundir.model) as made:
        for path in files(recipe, source, held is not None):
            copies.clone(path, made / path.name)
        if held is None:
            fits(read_json(made / "config.json"), tokenizer, name)
        tokenizer.save_pretrained(made)
    found = {path.name: manifest.sha256(path) for path in sorted(rundir.model.iterdir()) if path.suffix == weights.SAFE}
    shown = Path(name).name if name.startswith("/") else name
    print(f"train: nothing; {shown} was trained elsewhere", flush=True)
    for note in notes:
        print(f"train: {note}", flush=True)
    return {
        "base": models.base_facts(recipe),
        "versions": manifest.versions(),
        "elsewhere": {"name": shown, "adapter": held is not None, "sha256": found},
    }


def folder(recipe: Recipe, name: str) -> Path:
    """An ordinary folder of the model, found, downloaded or converted as a base model is."""
    if is_adapter(name):
        return Path(name)
    return models.model_dir(replace(recipe, model=replace(recipe.model, base_model=name, revision=None)))


def agree(lora: Lora | None, held: dict[str, Any] | None, name: str) -> None:
    """Compare the adapter with the section that is to describe it. Raises StageError."""
    if (lora is None) != (held is None):
        kind, mend = ("whole model", "--set lora=null") if held is None else ("adapter", f"--set 'lora={_lora(held)}'")
        raise StageError(
            f"{name} is a{'n' if held else ''} {kind}, which the lora section of the recipe does not say", mend
        )
    if lora is None or held is None:
        return
    if held.get("peft_type") != "LORA":
        raise StageError(
            f"{name} is an adapter of the kind {held.get('peft_type')}, not LoRA", "merge it where it was made"
        )
    asked = dict(zip(SETTINGS, (lora.r, lora.alpha, lora.use_rslora, lora.use_dora), strict=True))
    other = [f"{key} {held.get(key)}, not {asked[key]}" for key in SETTINGS if (held.get(key) or 0) != asked[key]]
    if other:
        raise StageError(f"{name} has {'; '.join(other)} as the recipe says", f"--set 'lora={_lora(held)}'")
    own = [key for key in OWN if held.get(key)]
    if own:
        raise StageError(f"{name} has {', '.join(own)}, which no recipe can say", "merge it where it was made")


def same_base(recipe: Recipe, held: dict[str, Any], name: str) -> list[str]:
    """Refuse an adapter of another model of the hub; gives what is to be said where names cannot be compared."""
    own, base = str(held.get("base_model_name_or_path") or ""), recipe.model.base_model
    if own.lower() == base.lower():
        return []
    if on_hub(own) and on_hub(base):
        hint = f"--set model.base_model={own}; or, where both are the same weights, write {base} into {ADAPTER}"
        raise StageError(f"{name} is an adapter of {own}, not of {base}", hint)
    return [f"the adapter is of {Path(own).name or 'a base it does not name'}: nobody compared that with the recipe's"]


def on_hub(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None and not name.endswith(".gguf")


def same_layers(recipe: Recipe, held: dict[str, Any], name: str) -> list[str]:
    """Refuse adapters in other layers than the recipe's; gives what is to be said where they cannot be compared."""
    targets, found = held.get("target_modules"), counts.parameters(recipe)
    asked = recipe.lora.target_modules if recipe.lora else ()
    if targets == asked:
        return []
    if isinstance(asked, str):
        if isinstance(targets, str) or found is None or counts.plain_only(recipe):
            return [f"the adapter is in the layers {targets}: nobody compared that with {asked} of the recipe"]
        asked = tuple(found.matched)
    if isinstance(targets, str) or {each.split(".")[-1] for each in targets or ()} != {
        each.split(".")[-1] for each in asked
    }:
        shown = targets if isinstance(targets, str) else ", ".join(sorted(targets or ()))
        raise StageError(
            f"{name} is in the layers {shown}, not {', '.join(sorted(asked))}", f"--set 'lora={_lora(held)}'"
        )
    return []


def files(recipe: Recipe, source: Path, adapter: bool) -> list[Path]:
    """What is copied: weights and their settings. Raises StageError for pickled, missing or broken weights."""
    found = [one.path for one in weights.read(source)]
    if adapter:
        if [path.name for path in found] != [ADAPTER_WEIGHTS]:
            raise StageError(f"{source} holds no {ADAPTER_WEIGHTS}", "save the adapter again with PEFT")
        return [source / ADAPTER, *found]
    names = ["config.json", "generation_config.json", weights.INDEX]
    code = sorted(source.glob("*.py")) if recipe.model.trust_remote_code else []
    return [*found, *(source / name for name in names if (source / name).is_file()), *code]


def fits(config: dict[str, Any], tokenizer: Any, name: str) -> None:
    """Raises StageError when the tokenizer has tokens that the model has no row for."""
    rows = config.get("vocab_size")
    if isinstance(rows, int) and len(tokenizer) > rows:
        message = f"the tokenizer has {len(tokenizer):,} tokens, {name} has rows for {rows:,}"
        raise StageError(message, f"--set model.tokenizer={name}")


def _lora(held: dict[str, Any]) -> str:
    """The section that describes an adapter, as --set takes it."""
    flags = (f"{key}: {str(bool(held.get(key))).lower()}" for key in SETTINGS[2:])
    targets = held.get("target_modules")
    layers = f", target_modules: [{', '.join(sorted(targets))}]" if isinstance(targets, list) and targets else ""
    return f"{{r: {held.get('r')}, alpha: {held.get('lora_alpha')}, {', '.join(flags)}{layers}}}"
