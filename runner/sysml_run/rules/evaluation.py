"""What is measured, what is kept of it, and whether the run is long enough for it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sysml_run.recipe import Recipe

from .bounds import in_words, length_key, number, steps
from .finding import Finding, Findings

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def measured(recipe: Recipe) -> Findings:
    """What is decided by the validation loss needs it measured during training."""
    for name in ("best", "early_stopping"):
        if getattr(recipe.evaluation, name) is not None and recipe.evaluation.every_steps is None:
            message = "needs the validation loss during training, and it is not measured there"
            yield Finding(f"evaluation.{name}", message, "write evaluation.every_steps")


def best_is_saved(recipe: Recipe) -> Findings:
    every, save = recipe.evaluation.every_steps, recipe.training.save_steps
    if recipe.evaluation.best is not None and every is not None and save is not None and save % every:
        message = f"the best checkpoint can only be known where the loss is measured, every {number(every)} steps"
        yield Finding("training.save_steps", message, f"write {number(every)}")


def best_is_lost(recipe: Recipe) -> Findings:
    """transformers remembers the step of the best loss, and falls back on an older step where that one has no files.

    keep_checkpoints cannot lose it: the best and the newest checkpoint are never deleted.
    """
    every, save = recipe.evaluation.every_steps, recipe.training.save_steps
    if recipe.evaluation.best is not None and every and save and save > every and save % every == 0:
        message = (
            f"the loss is measured every {number(every)} steps, and the best one is lost where no checkpoint is saved"
        )
        yield Finding("training.save_steps", message, f"write {number(every)}", "warning")


def stops_at_worst(recipe: Recipe) -> Findings:
    evaluation = recipe.evaluation
    if evaluation.early_stopping is not None and evaluation.best is None and evaluation.every_steps is not None:
        message = "stops after evaluations without improvement and keeps those weights, not the best ones"
        yield Finding("evaluation.early_stopping", message, "add evaluation.best: {metric: eval_loss}", "warning")


def stops_in_time(recipe: Recipe) -> Findings:
    """The first evaluation sets the mark; one at the very end has nothing left to stop."""
    early, every, most = recipe.evaluation.early_stopping, recipe.evaluation.every_steps, steps(recipe)
    if early is None or every is None or most is None:
        return
    before = (most - 1) // every
    if every <= most and before < early.patience + 1:
        message = (
            f"early_stopping waits for {number(early.patience + 1)} evaluations and cannot act: "
            f"in {in_words(recipe, most)}, one every {number(every)}, there are {number(before)} before the end"
        )
        yield Finding(length_key(recipe), message, "measure more often, or remove early_stopping", "warning")


def measured_once(recipe: Recipe) -> Findings:
    every, most = recipe.evaluation.every_steps, steps(recipe)
    if every is not None and most is not None and every > most:
        message = f"the run has {in_words(recipe, most)}, so the loss is measured at its end only"
        yield Finding("evaluation.every_steps", message, "write a smaller number, or remove it", "warning")


def saved_once(recipe: Recipe) -> Findings:
    save, most = recipe.training.save_steps, steps(recipe)
    if save is not None and most is not None and save > most:
        message = f"the run has {in_words(recipe, most)}, so a stopped one has no checkpoint to go on from"
        yield Finding("training.save_steps", message, "write a smaller number, or remove it", "warning")


def metrics(recipe: Recipe) -> Findings:
    if recipe.evaluation.metrics and recipe.evaluation.generate is None:
        message = "metrics are counted on generated answers, and none are generated"
        yield Finding("evaluation.metrics", message, "write evaluation.generate: {rows: 32}")


def answer_schema(recipe: Recipe) -> Findings:
    """The file by which schema_valid counts, which is read after training: mended before it."""
    file, asked = recipe.evaluation.json_schema, [*recipe.evaluation.metrics]
    if "schema_valid" in asked and file is None:
        where = f"evaluation.metrics.{asked.index('schema_valid')}"
        yield Finding(where, "there is no schema to go by", "write evaluation.json_schema: FILE")
    if file is None:
        return
    if "schema_valid" not in asked:
        yield Finding("evaluation.json_schema", "is not used", "add schema_valid to evaluation.metrics", "warning")
    try:
        words = _unfit(json.loads(Path(file).read_text(encoding="utf-8")))
    except OSError:
        hint = "a path counts from the recipe's folder, one in --set from the current folder"
        yield Finding("evaluation.json_schema", f"there is no file at {file}", hint, later=True)
    except ValueError as error:
        yield Finding("evaluation.json_schema", f"{Path(file).name} is not JSON: {error}", "write the schema as JSON")
    except RecursionError:
        yield Finding("evaluation.json_schema", f"{Path(file).name} is nested too deeply", "write a flatter schema")
    else:
        if words is not None:
            yield Finding("evaluation.json_schema", f"{Path(file).name}: {words}", "mend the schema")


def _unfit(schema: object) -> str | None:
    """What is wrong with a schema, as far as that can be seen with what is installed."""
    if not isinstance(schema, dict):
        return "a schema is an object"
    outside = [name for name in _references(schema) if not name.startswith("#")]
    if outside:
        return f"refers to {outside[0]}, and nothing but the file itself is read"
    if importlib.util.find_spec("jsonschema") is None:
        return None
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        return f"{'.'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message.splitlines()[0][:200]}"
    nowhere = _dangling(schema)
    return f"refers to {nowhere}, which is not in it" if nowhere else None


def _references(value: object, keys: Sequence[str] = REFERENCES) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (name for key, name in value.items() if key in keys and isinstance(name, str))
        yield from (name for below in value.values() for name in _references(below, keys))
    elif isinstance(value, list):
        yield from (name for below in value for name in _references(below, keys))


def _dangling(schema: dict[str, object]) -> str | None:
    """A reference that leads nowhere; parts with an address of their own, which change what it counts from, may."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, specification_with

    if any(_references([*schema.values()], ("$id",))):
        return None
    found = specification_with(str(schema.get("$schema", "")), default=DRAFT202012)
    resolver = Registry[object]().resolver_with_root(found.create_resource(schema))
    for name in _references(schema):
        try:
            resolver.lookup(name)
        except Unresolvable:
            return name
    return None


def folds(recipe: Recipe) -> Findings:
    """Cross-validation divides every row itself, and makes no model to keep."""
    found = recipe.evaluation.cross_validation
    if found is None:
        return
    if found.fold is not None and found.fold > found.folds:
        yield Finding("evaluation.cross_validation.fold", f"there are {found.folds} folds", "write a smaller number")
    for at, dataset in enumerate(recipe.datasets):
        if dataset.use_as == "validation":
            message = "every fold would be measured on these rows, and in cross-validation each row is validated once"
            yield Finding(f"datasets.{at}.use_as", message, "write auto, train or test")
    message = "is not read: with evaluation.cross_validation every fold is validated once"
    yield Finding("split.validation", message, "remove it", "warning", written=True)
    if recipe.model.trained is not None:
        message = "a model that was trained elsewhere is not trained again on each fold"
        yield Finding("evaluation.cross_validation", message, "remove one of the two")
    for key, asked in (("quantization.export", recipe.quantization.export), ("artifacts.dir", recipe.artifacts.dir)):
        if asked:
            message = "does nothing: cross-validation measures and makes no model"
            yield Finding(key, message, "remove it, or evaluation.cross_validation", "warning")


def said_twice(recipe: Recipe) -> Findings:
    """Of lists whose items are names or what they name: the second of two that are the same."""
    targets = recipe.lora.target_modules if recipe.lora else ()
    lists: dict[str, Sequence[object]] = {"evaluation.metrics": recipe.evaluation.metrics, "tracking": recipe.tracking}
    lists["lora.target_modules"] = targets if isinstance(targets, tuple) else ()
    for key, items in lists.items():
        for at, item in enumerate(items):
            if item in items[:at]:
                yield Finding(f"{key}.{at}", "stands in the list already", "remove it")
