"""The libraries that training takes: which of them a recipe needs, in which version, and what is installed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from .recipe import HardwareCpu, HardwareTpu, Recipe

EXTRA = "pip install 'sysml-run[train]'"
TPU_EXTRA = "python3 -m venv .venv-tpu && .venv-tpu/bin/pip install 'sysml-run[tpu]'"  # never beside train
TRAINING = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "jinja2", "matplotlib")
BITSANDBYTES = ("adamw_8bit", "lion", "lion_8bit")  # optimizers that it computes
INSTALL: Mapping[str, str] = {
    "liger_kernel": "pip install 'sysml-run[liger]'",
    "flash_attn": "pip install flash-attn --no-build-isolation",
    "deepspeed": "pip install deepspeed==0.19.8",
    "torch_xla": TPU_EXTRA,
    "lion_pytorch": TPU_EXTRA,
    "gguf": EXTRA,
    "libgguf": EXTRA,
    "llama_cpp": "pip install llama-cpp-python",
    **{name: f"pip install 'sysml-run[{name}]'" for name in ("tensorboard", "mlflow", "wandb", "trackio")},
    **dict.fromkeys(("jsonschema", "rouge_score"), "pip install 'sysml-run[metrics]'"),
    **dict.fromkeys(("gptqmodel", "optimum"), "pip install 'sysml-run[gptq]'"),
}
METRICS: Mapping[str, str] = {"schema_valid": "jsonschema", "rouge_l": "rouge_score"}  # what computes each
SMALLER: Mapping[str, str] = {"mlflow": "mlflow-skinny"}  # a package of another name that brings the same
MODULES = (*TRAINING, *INSTALL, "bitsandbytes", "huggingface_hub")
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?\s*([^;\s]*)\s*;\s*extra == .(\w+).$")
CLAUSE = re.compile(r"(==|!=|<=|>=|<|>)\s*([^,]+)")
RELEASE = re.compile(r"[0-9]+(?:\.[0-9]+)*")
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Library:
    """`version` is None where it is not installed; `wanted` is such as `==5.23.0`, empty where any version will do."""

    name: str
    version: str | None
    wanted: str

    @property
    def install(self) -> str:
        """The command that brings it, in the version that is wanted."""
        if self.version is not None:
            return f"pip install '{self.name}{self.wanted}'"
        return command(self.name)


def libraries(recipe: Recipe) -> tuple[str, ...]:
    """What the stages of this recipe import."""
    models = (recipe.model.base_model, recipe.model.tokenizer)
    needed = [*TRAINING]
    on_tpu = isinstance(recipe.hardware, HardwareTpu)
    if (recipe.optimizer.name in BITSANDBYTES and not on_tpu) or recipe.quantization.load is not None:
        needed.append("bitsandbytes")
    if any(name.endswith(".gguf") for name in models if name):
        needed.append("gguf")
    if recipe.model.kernels == "liger":
        needed.append("liger_kernel")
    if recipe.model.attn_implementation == "flash_attention_2" and find_spec("kernels") is None:
        needed.append("flash_attn")
    needed += [METRICS[one] for one in recipe.evaluation.metrics if isinstance(one, str) and one in METRICS]
    return (*needed, *recipe.tracking, *_launching(recipe))


def _launching(recipe: Recipe) -> tuple[str, ...]:
    hardware = recipe.hardware
    if isinstance(hardware, HardwareTpu):
        return ("torch_xla", *(("lion_pytorch",) if recipe.optimizer.name == "lion" else ()))
    several = isinstance(hardware, HardwareCpu) and hardware.devices > 1
    return ("deepspeed",) if several or hardware.zero_stage is not None else ()


def extra(recipe: Recipe) -> str:
    """The extra of sysml-run that brings what this recipe trains with."""
    return "tpu" if isinstance(recipe.hardware, HardwareTpu) else "train"


def command(name: str) -> str:
    """What to type for a library that is not installed."""
    return EXTRA if name in (*pins(), *TRAINING) else INSTALL.get(name, f"pip install {name}")


def look(name: str, extra: str = "train") -> Library:
    """What is installed under a name, which is also the name it is imported by. Imports nothing."""
    from importlib import metadata  # takes longer to import than a recipe to check

    version: str | None = None
    for package in (SMALLER.get(name, name), name):
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(package)
    return Library(name, version, pins(extra=extra).get(name, ""))


def pins(package: str = "sysml-run", extra: str = "train") -> Mapping[str, str]:
    """What an extra asks for, by the names that are imported; empty where nobody installed sysml-run."""
    from importlib import metadata  # takes longer to import than a recipe to check

    try:
        asked = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return {}
    found = (REQUIREMENT.match(line) for line in asked)
    return {one[1].lower().replace("-", "_"): one[2] for one in found if one is not None and one[3] == extra}


def fits(version: str, wanted: str) -> bool:
    """Whether a version is one of `==5.23.0` or `<4,>=3.1.6`; what follows a + (a build) does not count."""
    here = _order(version)
    return all(OPERATORS[clause[1]](here, _order(clause[2])) for clause in CLAUSE.finditer(wanted))


def _order(version: str) -> tuple[tuple[int, ...], int]:
    """Release numbers without trailing zeros, and -1 for what comes before that release, such as 5.23.0rc1."""
    public = version.partition("+")[0].strip()
    release = RELEASE.match(public)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    rest = public[release.end() :] if release else public
    return tuple(numbers), 1 if rest.startswith(".post") else -1 if rest else 0
