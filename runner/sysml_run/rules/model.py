"""The base model: whose code it runs, who may download it, and how long a text it knows."""

from __future__ import annotations

import re

from sysml_run import architecture, caches, counts, modelref
from sysml_run.architecture import Architecture
from sysml_run.errors import UsageError
from sysml_run.modelref import TRAINED, is_adapter, locate
from sysml_run.recipe import Recipe

from .finding import Finding, Findings

ALL_KNOW = 1024  # positions; language models know more, and reading a large file's header costs 50 ms
SMALL = 10**9  # parameters
IN_PACKAGE = re.compile(r"package:[A-Za-z_]\w*/.+")
HUB_ADDRESS = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|hub:)([\w.-]+/[\w.-]+)")


def models(recipe: Recipe) -> Findings:
    """A file, folder or package may be where the recipe runs; a name in no known form is nowhere."""
    for named in modelref.models(recipe):
        at, name = named.pointer, named.name
        try:
            named.ref()
        except UsageError as error:
            address, package = HUB_ADDRESS.match(name), name.startswith("package:")
            if package and not IN_PACKAGE.fullmatch(name):
                yield Finding(at, f"{name} names no file in a package", "write package:MODULE/FILE")
                continue
            hint = f"a model of the hub is written {address[1]}" if address else error.hint
            yield Finding(at, error.message, hint, later=package or name.startswith("/"))
        except OSError as error:
            yield Finding(at, f"the path cannot be looked at: {error.strerror}", "write a shorter one")


def trained_elsewhere(recipe: Recipe) -> Findings:
    """Adapters need the `lora` section that says what they are; whole weights have none."""
    name = recipe.model.trained
    if name is None:
        return
    if is_adapter(name) and recipe.lora is None:
        hint = "write lora: {r: 16} as the adapter is"
        yield Finding(TRAINED, "is an adapter, and the recipe has no lora section", hint)
    if recipe.lora is not None and not is_adapter(name) and _whole(name):
        yield Finding(TRAINED, "is a whole model, and the recipe is for an adapter", "remove lora")


def revision(recipe: Recipe) -> Findings:
    """A revision is a commit of a hub repository; nothing else has one."""
    local = recipe.model.base_model.startswith(("package:", "tiny:", "/"))
    if recipe.model.revision is not None and local:
        yield Finding("model.revision", "only a model of the hub has revisions", "remove it")


def remote_code(recipe: Recipe) -> Findings:
    if recipe.model.trust_remote_code:
        message = "runs Python code that comes with the model, with your rights"
        yield Finding("model.trust_remote_code", message, "read that code first and pin model.revision", "warning")


def positions(recipe: Recipe) -> Findings:
    longest = recipe.prompt.sequence_len
    model = known(recipe) if longest > ALL_KNOW else None
    if model is not None and 0 < model.max_position_embeddings < longest:
        message = f"{recipe.model.base_model} was made for {model.max_position_embeddings} positions at most"
        hint = f"write sequence_len: {model.max_position_embeddings}; it has learned nothing of the order beyond"
        yield Finding("prompt.sequence_len", message, hint, "warning", or_at="model.base_model")


def access(recipe: Recipe) -> Findings:
    """Models that are given only to those who asked, when neither their files nor a token are here."""
    if caches.offline() or caches.token_source():
        return
    for named in modelref.models(recipe):
        if architecture.gated(named.name) and caches.snapshot(named.name, named.revision) is None:
            hint = f"ask for access at https://huggingface.co/{named.name} and set HF_TOKEN"
            yield Finding(named.pointer, f"{named.name} is gated, and no token is set", hint, "warning")


def known(recipe: Recipe) -> Architecture | None:
    """The base model's architecture where it is at hand and can be read; what is wrong with it the run says."""
    try:
        return architecture.find(recipe.model)
    except (UsageError, OSError):
        return None


def small(recipe: Recipe) -> bool:
    """Whether the base model is known to have fewer than SMALL parameters."""
    try:
        found = counts.parameters(recipe)
    except (UsageError, OSError):
        return False
    return found is not None and found.total < SMALL


def _whole(name: str) -> bool:
    """Whether it is seen from here that these are whole weights; what a hub id holds is not."""
    try:
        return locate(name).kind != "hub"
    except (UsageError, OSError):
        return False
