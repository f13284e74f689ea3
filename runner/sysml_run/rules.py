"""What JSON Schema cannot say: keys that contradict each other, data that is not there, branches not built yet."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .document import Document
from .errors import Problem, Severity
from .position import pointer
from .recipe import HardwareTpu, Recipe
from .resolve import exists
from .unbuilt import TEMPLATES, unbuilt


@dataclass(frozen=True)
class Finding:
    """What a rule has to say of `pointer` (dotted); `later` ones are errors only when the recipe is to run here."""

    pointer: str
    message: str
    hint: str | None = None
    severity: Severity = "error"
    later: bool = False


Rule = Callable[[Recipe], Iterator[Finding]]


def check(recipe: Recipe, document: Document, *, running: bool) -> list[Problem]:
    """What every rule finds, in file order.

    `running` is for plan and run: what is missing here or not built is then an error, in a mere check a warning.
    """
    findings = [finding for rule in RULES for finding in rule(recipe)]
    problems = [_problem(finding, document, running) for finding in findings]
    return sorted(problems, key=lambda problem: (problem.line is None, problem.line, problem.column))


def _problem(finding: Finding, document: Document, running: bool) -> Problem:
    at = pointer(finding.pointer)
    problem = document.place(at).problem(at, finding.message, finding.hint)
    return replace(problem, severity="warning" if finding.later and not running else finding.severity)


def length(recipe: Recipe) -> Iterator[Finding]:
    epochs, steps = recipe.training.num_epochs, recipe.training.max_steps
    if epochs is None and steps is None:
        yield Finding("training", "neither num_epochs nor max_steps says when the run ends", "write num_epochs: 1")
    if epochs is not None and steps is not None:
        yield Finding("training.max_steps", "num_epochs is written too, and only one can end the run", "keep one")


def warmup(recipe: Recipe) -> Iterator[Finding]:
    if recipe.optimizer.warmup_ratio is not None and recipe.optimizer.warmup_steps is not None:
        message = "warmup_ratio is written too, and only one can say how long the warm-up is"
        yield Finding("optimizer.warmup_steps", message, "keep one")


def batch(recipe: Recipe) -> Iterator[Finding]:
    training = recipe.training
    if training.effective_batch_size is not None and training.gradient_accumulation_steps is not None:
        message = "gradient_accumulation_steps is written too, and each follows from the other"
        yield Finding("training.effective_batch_size", message, "keep one")


def batch_divides(recipe: Recipe) -> Iterator[Finding]:
    """Leaves TPU out: its number of devices follows from the topology at hand."""
    hardware, effective = recipe.hardware, recipe.training.effective_batch_size
    if isinstance(hardware, HardwareTpu) or effective is None:
        return
    world = hardware.devices * getattr(hardware, "nodes", 1)
    step = recipe.training.micro_batch_size * world
    if effective % step:
        message = f"{effective} rows are no multiple of micro_batch_size x devices = {step}"
        yield Finding("training.effective_batch_size", message, f"write {-(-effective // step) * step}")


def min_lr(recipe: Recipe) -> Iterator[Finding]:
    if recipe.optimizer.min_lr_ratio > 0 and recipe.optimizer.lr_scheduler != "cosine":
        message = f"has no effect with lr_scheduler: {recipe.optimizer.lr_scheduler}"
        yield Finding("optimizer.min_lr_ratio", message, "write lr_scheduler: cosine, or remove it")


def cycles(recipe: Recipe) -> Iterator[Finding]:
    if recipe.optimizer.num_cycles > 1 and recipe.optimizer.lr_scheduler != "cosine_with_restarts":
        message = f"has no effect with lr_scheduler: {recipe.optimizer.lr_scheduler}"
        yield Finding("optimizer.num_cycles", message, "write lr_scheduler: cosine_with_restarts, or remove it")


def measured(recipe: Recipe) -> Iterator[Finding]:
    """What is decided by the validation loss needs it measured during training."""
    for name in ("best", "early_stopping"):
        if getattr(recipe.evaluation, name) is not None and recipe.evaluation.every_steps is None:
            message = "needs the validation loss during training, and it is not measured there"
            yield Finding(f"evaluation.{name}", message, "write evaluation.every_steps")


def best_is_saved(recipe: Recipe) -> Iterator[Finding]:
    every, save = recipe.evaluation.every_steps, recipe.training.save_steps
    if recipe.evaluation.best is not None and every is not None and save is not None and save % every:
        message = f"the best checkpoint can only be known where the loss is measured, every {every} steps"
        yield Finding("training.save_steps", message, f"write {-(-save // every) * every}")


def metrics(recipe: Recipe) -> Iterator[Finding]:
    if recipe.evaluation.metrics and recipe.evaluation.generate is None:
        message = "metrics are counted on generated answers, and none are generated"
        yield Finding("evaluation.metrics", message, "write evaluation.generate: {rows: 32}")


def shares(recipe: Recipe) -> Iterator[Finding]:
    sides = {"validation": recipe.split.validation, "test": recipe.split.test}
    for name, size in sides.items():
        if size > 1 and size != int(size):
            yield Finding(f"split.{name}", f"{size:g} is neither a share below 1 nor a whole number of rows")
    taken = sum(size for size in sides.values() if size < 1)
    if taken >= 1:
        yield Finding("split", f"validation and test take {taken:.0%} of the rows and leave none to train on")


def validation_rows(recipe: Recipe) -> Iterator[Finding]:
    if recipe.split.validation == 0:
        message = "no rows are held out, and the loss before and after is measured on them"
        yield Finding("split.validation", message, "write 0.1")


def half_precision(recipe: Recipe) -> Iterator[Finding]:
    if recipe.hardware.accelerator == "cpu" and recipe.hardware.precision == "fp16":
        message = "fp16 on a processor is 40 to 100 times slower than fp32"
        yield Finding("hardware.precision", message, "write auto, bf16 or fp32")


def flash_attention(recipe: Recipe) -> Iterator[Finding]:
    if recipe.hardware.accelerator == "cpu" and recipe.model.attn_implementation == "flash_attention_2":
        yield Finding("model.attn_implementation", "flash attention needs a GPU", "write auto, eager or sdpa")


def revision(recipe: Recipe) -> Iterator[Finding]:
    """A revision is a commit of a hub repository; nothing else has one."""
    local = recipe.model.base_model.startswith(("package:", "tiny:", "/"))
    if recipe.model.revision is not None and local:
        yield Finding("model.revision", "only a model of the hub has revisions", "remove it")


def template(recipe: Recipe) -> Iterator[Finding]:
    text = recipe.prompt.template
    if "{{" not in text and "{%" not in text and text not in ("tokenizer", *TEMPLATES):
        hint = f"write {', '.join(('tokenizer', *TEMPLATES))} or the text of a Jinja template"
        yield Finding("prompt.template", f"there is no template called {text!r}", hint)


def rows_are_mapped(recipe: Recipe) -> Iterator[Finding]:
    for at, dataset in enumerate(recipe.datasets):
        absent = [name for name in ("prompt", "completion") if getattr(dataset.map, name) is None]
        if dataset.type == "rows" and absent:
            message = f"type: rows has no templates of its own; missing: {', '.join(absent)}"
            yield Finding(f"datasets.{at}.map", message, 'for example prompt: "{{ question }}"')


def data_is_here(recipe: Recipe) -> Iterator[Finding]:
    for at, dataset in enumerate(recipe.datasets):
        if not dataset.path.startswith("hub:") and not there(dataset.path):
            hint = "a path counts from the recipe's folder, one in --set from the current folder"
            yield Finding(f"datasets.{at}.path", f"there is nothing at {dataset.path}", hint, later=True)


def there(path: str) -> bool:
    """True for a file, a folder, and a glob that some file matches."""
    return exists(path) or any(glob.iglob(path, recursive=True))  # noqa: PTH207 - the pattern is absolute


def remote_code(recipe: Recipe) -> Iterator[Finding]:
    if recipe.model.trust_remote_code:
        message = "runs Python code that comes with the model, with your rights"
        yield Finding("model.trust_remote_code", message, "read that code first and pin model.revision", "warning")


def not_built(recipe: Recipe) -> Iterator[Finding]:
    for where, message, hint in unbuilt(recipe):
        yield Finding(where, message, hint, later=True)


RULES: tuple[Rule, ...] = (
    length,
    warmup,
    batch,
    batch_divides,
    min_lr,
    cycles,
    measured,
    best_is_saved,
    metrics,
    shares,
    validation_rows,
    half_precision,
    flash_attention,
    revision,
    template,
    rows_are_mapped,
    data_is_here,
    remote_code,
    not_built,
)
