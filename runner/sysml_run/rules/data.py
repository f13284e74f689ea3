"""Rows: where they come from, how they are shaped, and how they are divided."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from sysml_run.recipe import Recipe
from sysml_run.resolve import exists
from sysml_run.templates import NAMES

from .bounds import divided, held_out, number, rows
from .finding import Finding, Findings

HUB = "hub:"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SUFFIX = re.compile(r"\.[a-z]+", re.IGNORECASE)
FORM = "a hub dataset is written hub:owner/name"


def shares(recipe: Recipe) -> Findings:
    sizes = {"validation": recipe.split.validation, "test": recipe.split.test}
    for name, size in sizes.items():
        if size > 1 and size != int(size):
            yield Finding(f"split.{name}", f"{size:g} is neither a share below 1 nor a whole number of rows")
    taken = sum(size for size in sizes.values() if size < 1)
    if taken >= 1:
        yield Finding("split", f"validation and test take {taken:.0%} of the rows and leave none to train on")


def split_fits(recipe: Recipe) -> Findings:
    """Where max_rows bounds the rows, the sides must not ask for all of them."""
    total, own, asked = divided(recipe), rows(recipe, "train"), held_out(recipe)
    if not total or own != 0 or sum(asked.values()) < total:
        return
    largest = max(asked, key=lambda name: asked[name])
    sums = " and ".join(f"{name} {number(count)}" for name, count in asked.items())
    message = f"max_rows lets {number(total)} through at most, and to hold out {sums} leaves none to train on"
    yield Finding(f"split.{largest}", message, "hold out fewer, or raise max_rows", or_at="datasets.0.max_rows")


def used_to_train(recipe: Recipe) -> Findings:
    if all(dataset.use_as in ("validation", "test") for dataset in recipe.datasets):
        yield Finding("datasets.0.use_as", "no dataset is left to train on", "write auto or train")


def validation_rows(recipe: Recipe) -> Findings:
    uses = [dataset.use_as for dataset in recipe.datasets]
    if "validation" in uses:
        return
    if "auto" not in uses:
        message = "the loss is measured on validation rows, and no dataset is divided or used for them"
        yield Finding("datasets.0.use_as", message, "write auto, or use_as: validation for another dataset")
    elif recipe.split.validation == 0 and recipe.evaluation.cross_validation is None:
        message = "no rows are held out, and the loss before and after is measured on them"
        yield Finding("split.validation", message, "write 0.1")


def template(recipe: Recipe) -> Findings:
    text = recipe.prompt.template
    if "{{" not in text and "{%" not in text and text not in ("tokenizer", *NAMES):
        hint = f"write {', '.join(('tokenizer', *NAMES))} or the text of a Jinja template"
        yield Finding("prompt.template", f"there is no template called {text!r}", hint)


def buckets(recipe: Recipe) -> Findings:
    if recipe.prompt.packing and recipe.prompt.padding == "bucketed":
        message = "packing fills every sequence up to sequence_len and leaves no lengths to put into buckets"
        yield Finding("prompt.padding", message, "write dynamic or max_length, or packing: false")


def rows_are_mapped(recipe: Recipe) -> Findings:
    for at, dataset in enumerate(recipe.datasets):
        absent = [name for name in ("prompt", "completion") if getattr(dataset.map, name) is None]
        if dataset.type == "rows" and absent:
            message = f"type: rows has no templates of its own; missing: {', '.join(absent)}"
            yield Finding(f"datasets.{at}.map", message, 'for example prompt: "{{ question }}"')


def hub_name(recipe: Recipe) -> Findings:
    for at, dataset in enumerate(recipe.datasets):
        if dataset.path.startswith(HUB) and not HUB_ID.fullmatch(dataset.path.removeprefix(HUB)):
            yield Finding(f"datasets.{at}.path", f"{dataset.path} names no owner and dataset", FORM)


def only_of_the_hub(recipe: Recipe) -> Findings:
    """A file has no configurations, splits and revisions; to leave them unread would train on other rows."""
    for at, dataset in enumerate(recipe.datasets):
        written = {"config": dataset.config, "revision": dataset.revision}
        written |= {"split": dataset.split} if dataset.split != "train" else {}
        for key in [key for key, value in written.items() if value is not None and not dataset.path.startswith(HUB)]:
            message = f"only a dataset of the hub has a {key}"
            yield Finding(f"datasets.{at}.{key}", message, "remove it, and name the file of those rows in path")


def data_is_here(recipe: Recipe) -> Findings:
    for at, dataset in enumerate(recipe.datasets):
        if not dataset.path.startswith(HUB) and not there(dataset.path):
            hint = _meant(Path(dataset.path))
            yield Finding(f"datasets.{at}.path", f"there is nothing at {dataset.path}", hint, later=True)


def _meant(path: Path) -> str:
    """A hub's owner/name where the path could be one: its folder is not there, and no file ends so."""
    name = f"{path.parent.name}/{path.name}"
    if HUB_ID.fullmatch(name) and not SUFFIX.fullmatch(path.suffix) and not exists(str(path.parent)):
        return f"a hub dataset is written hub:{name}; a path counts from the recipe's folder"
    return "a path counts from the recipe's folder, one in --set from the current folder"


def there(path: str) -> bool:
    """True for a file, a folder, and a glob that some file matches."""
    return exists(path) or any(glob.iglob(path, recursive=True))  # noqa: PTH207 - the pattern is absolute
