"""How long a run is and how its learning rate moves."""

from __future__ import annotations

from dataclasses import dataclass

from sysml_run import schema
from sysml_run.recipe import Recipe
from sysml_run.schedule import PLATEAU

from .bounds import in_words, steps
from .finding import Finding, Findings
from .model import small

LOWEST = 1e-7


@dataclass(frozen=True)
class Rates:
    """Above `full` and `lora` a rate is far outside the usual range, which hints name."""

    full: float
    lora: float
    usual_full: str
    usual_lora: str


ADAMW = Rates(5e-4, 5e-3, "1e-5 to 5e-5", "1e-4 to 1e-3")
LION = Rates(1e-4, 3e-4, "1e-6 to 1e-5", "1e-5 to 1e-4")
RATES = {
    "adamw": ADAMW,
    "adamw_8bit": ADAMW,
    "lion": LION,
    "lion_8bit": LION,
    "adafactor": Rates(5e-3, 1e-2, "1e-4 to 1e-3", "1e-4 to 1e-3"),
}


def length(recipe: Recipe) -> Findings:
    epochs, limit = recipe.training.num_epochs, recipe.training.max_steps
    if epochs is None and limit is None:
        yield Finding("training", "neither num_epochs nor max_steps says when the run ends", "write num_epochs: 1")
    if epochs is not None and limit is not None:
        yield Finding("training.max_steps", "num_epochs is written too, and only one can end the run", "keep one")


def warmup(recipe: Recipe) -> Findings:
    if recipe.optimizer.warmup_ratio is not None and recipe.optimizer.warmup_steps is not None:
        message = "warmup_ratio is written too, and only one can say how long the warm-up is"
        yield Finding("optimizer.warmup_steps", message, "keep one")


def warmup_ends(recipe: Recipe) -> Findings:
    rising, most = recipe.optimizer.warmup_steps, steps(recipe)
    if rising and most is not None and rising >= most:
        message = f"the run has {in_words(recipe, most)}, so the learning rate would never be reached"
        yield Finding("optimizer.warmup_steps", message, "write fewer, or warmup_ratio: 0.1 instead")


def min_lr(recipe: Recipe) -> Findings:
    if recipe.optimizer.min_lr_ratio > 0 and recipe.optimizer.lr_scheduler not in ("cosine", PLATEAU):
        message = f"has no effect with lr_scheduler: {recipe.optimizer.lr_scheduler}"
        yield Finding("optimizer.min_lr_ratio", message, "write lr_scheduler: cosine, or remove it")


def cycles(recipe: Recipe) -> Findings:
    if recipe.optimizer.num_cycles > 1 and recipe.optimizer.lr_scheduler != "cosine_with_restarts":
        message = f"has no effect with lr_scheduler: {recipe.optimizer.lr_scheduler}"
        yield Finding("optimizer.num_cycles", message, "write lr_scheduler: cosine_with_restarts, or remove it")


def plateau(recipe: Recipe) -> Findings:
    chosen = recipe.optimizer
    if chosen.lr_scheduler == PLATEAU:
        if recipe.evaluation.every_steps is None:
            message = "the validation loss is never measured in training, so the learning rate would never fall"
            yield Finding("optimizer.lr_scheduler", message, "write evaluation.every_steps, or lr_scheduler: cosine")
        return
    for key in ("plateau_factor", "plateau_patience"):
        (node,) = schema.find(("optimizer", key))[-1:]
        if getattr(chosen, key) != node["default"]:  # packed recipes have every key
            message = f"has no effect with lr_scheduler: {chosen.lr_scheduler}"
            yield Finding(f"optimizer.{key}", message, f"write lr_scheduler: {PLATEAU}, or remove it")


def learning_rate(recipe: Recipe) -> Findings:
    """Rates far outside of what is published; tiny random models take any.

    AdamW: 2e-5 for all weights (Touvron et al., 2023), 2e-4 for adapters (Hu et al., 2021; Dettmers et al., 2023).
    Models below a thousand million parameters take in full what adapters do: 1e-3 for 135 million (SmolLM2's recipes).
    Lion: 3 to 10 times below (Chen et al., 2023). Adafactor: 1e-3 (Raffel et al., 2020). SGD has no usual range.
    """
    rate, known = recipe.optimizer.learning_rate, RATES.get(recipe.optimizer.name)
    if recipe.model.base_model.startswith("tiny:") or (known and LOWEST <= rate <= known.full):
        return
    high = recipe.lora is not None or small(recipe)
    method = "adapters" if recipe.lora else "a small model" if high else "a full fine-tune"
    usual = (known.usual_lora if high else known.usual_full) if known else None
    hint = f"usual for {recipe.optimizer.name} and {method}: {usual}" if usual else "write a larger one"
    if rate < LOWEST:
        yield Finding("optimizer.learning_rate", f"{rate:g} changes the model next to nothing", hint, "warning")
    if known and rate > (known.lora if high else known.full):
        lower = ", whose rates are 3 to 10 times below AdamW's" if known is LION else ""
        message = f"{rate:g} is far above what {recipe.optimizer.name} takes{lower}"
        yield Finding("optimizer.learning_rate", message, hint, "warning")
