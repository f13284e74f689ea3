"""How many rows and steps a recipe can come to at most, where it says enough; None where it does not."""

from __future__ import annotations

from sysml_run import schedule, slices
from sysml_run.errors import UsageError
from sysml_run.recipe import HardwareTpu, Recipe


def world(recipe: Recipe) -> int | None:
    """Devices over all machines that each take a micro batch; None for a TPU slice that there is not."""
    hardware = recipe.hardware
    if isinstance(hardware, HardwareTpu):
        try:
            return slices.find(hardware.topology).devices
        except UsageError:  # a rule's own finding
            return None
    return hardware.devices * int(getattr(hardware, "nodes", 1))


def rows(recipe: Recipe, use: str) -> int | None:
    """The most rows of the datasets with this `use_as`: known when each has max_rows."""
    limits = [dataset.max_rows for dataset in recipe.datasets if dataset.use_as == use]
    return None if None in limits else sum(limit or 0 for limit in limits)


def divided(recipe: Recipe) -> int | None:
    """The most rows that `split` divides."""
    return rows(recipe, "auto")


def held_out(recipe: Recipe) -> dict[str, int]:
    """Rows that `split` asks for beside training: their number, or 1 for a share, which gives no fewer."""
    sizes = {"validation": recipe.split.validation, "test": recipe.split.test}
    return {name: round(size) if size >= 1 else 1 for name, size in sizes.items() if size}


def training_rows(recipe: Recipe) -> int | None:
    """The most rows to train on, of each side that is held out one less; groups can leave a side that few."""
    total, own = divided(recipe), rows(recipe, "train")
    if total is None or own is None:
        return None
    return own + max(0, total - len(held_out(recipe)))


def steps(recipe: Recipe) -> int | None:
    """The most optimizer steps: max_steps, else what num_epochs comes to on the most rows."""
    training, left = recipe.training, training_rows(recipe)
    drawn_once = all(dataset.weight == 1 for dataset in recipe.datasets)
    counted = left if left and drawn_once and training.num_epochs is not None else None
    micro, devices = training.micro_batch_size, world(recipe) or 1
    solved = max(1, (training.effective_batch_size or 0) // (micro * devices))
    accumulation = training.gradient_accumulation_steps or solved
    batch = {"micro": micro, "accumulation": accumulation, "world_size": devices}
    found = schedule.steps(counted, batch, recipe)
    return found.total if found else None


def length_key(recipe: Recipe) -> str:
    """The key that ends the run."""
    return "training.num_epochs" if recipe.training.max_steps is None else "training.max_steps"


def number(count: int) -> str:
    """A count in digits, or as 1.0e308 where nobody would read them."""
    digits = str(count)
    return digits if len(digits) <= 15 else f"{digits[0]}.{digits[1]}e{len(digits) - 1}"


def in_words(recipe: Recipe, count: int) -> str:
    """`10 steps`, or `at most 10 steps` where rows may still be dropped."""
    return f"{'at most ' if recipe.training.max_steps is None else ''}{number(count)} step{'' if count == 1 else 's'}"
