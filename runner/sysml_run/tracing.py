"""`plan --trace`: one step of the model on tensors that hold nothing, for models that no closed form is known for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import architecture, needs, outlook
from .caches import snapshot
from .errors import StageError, UsageError
from .estimate import traced
from .estimate.traced import Traced
from .estimate.verdict import Verdict, available, verdict
from .modelref import VOCABULARY, ModelRef, locate
from .plan import ENV, OFFLINE, Plan
from .recipe import HardwareTpu, Recipe

LIBRARIES = ("torch", "transformers", "peft")
CLOSED, TRACED = "closed form", "traced"


@dataclass(frozen=True)
class Answers:
    """Whether a step fits, by each way to the answer; `closed` is None for a model that no closed form knows."""

    closed: Verdict | None
    seen: Verdict

    def values(self, memory: Mapping[str, Any] | None) -> dict[str, Any]:
        """The plan's `memory` with its `source`, the closed form where there is one, and `traced` beside it."""
        seen = {**outlook.memory(self.seen), "source": TRACED}
        return {"memory": {**memory, "source": CLOSED} if memory else seen, "traced": seen}

    def text(self) -> str:
        """Both answers, each with where it comes from, and what one is of the other."""
        closed = outlook.judged(self.closed) if self.closed else f"not known: {outlook.NO_MODEL}"
        lines = [
            "memory of a step, by source",
            f"  {CLOSED}  {closed}",
            f"  {TRACED}       {outlook.judged(self.seen)}",
        ]
        if self.closed:
            share = self.seen.estimate.total / self.closed.estimate.total
            lines.append(f"  {TRACED} is {share:.2f} of the {CLOSED}")
        return "\n".join(lines) + "\n"


def look(plan: Plan) -> Answers:
    """Raises UsageError for what is lacking here, StageError for a model that cannot be traced."""
    found = traced.of(plan.recipe, trace(plan))
    return Answers(verdict(plan.recipe, plan.machine), Verdict(found, available(plan.recipe, plan.machine)))


def trace(plan: Plan) -> Traced:
    """What one step holds, from a process that builds the model without weights. Raises as `look` does."""
    lacking = [name for name in LIBRARIES if find_spec(name) is None]
    if lacking:
        raise UsageError(f"--trace needs {', '.join(lacking)}", needs.command(lacking[0]))
    if isinstance(plan.recipe.hardware, HardwareTpu):
        raise UsageError("--trace is for a processor or for cards", "leave it out: what a TPU holds is in the plan")
    asked = json.dumps({"values": plan.values, "config": config(plan.recipe)})
    env = {**os.environ, **ENV, **OFFLINE}
    command = [sys.executable, "-m", "sysml_run.worker.trace"]
    done = subprocess.run(command, input=asked, env=env, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        raise StageError("the model could not be traced", last or f"exit code {done.returncode}") from None
    if "message" in answer:
        raise StageError(answer["message"], answer["hint"])
    return Traced(**answer)


def config(recipe: Recipe) -> dict[str, Any] | None:
    """The values of the model's config.json; None for a GGUF file, which has its own. Raises UsageError."""
    ref = locate(recipe.model.base_model)
    if ref.kind == "gguf":
        return None
    if ref.kind == "tiny":
        found = architecture.find(recipe.model)
        words = found.vocab_size if found else VOCABULARY
        return {"model_type": ref.where, "vocab_size": words, **architecture.tiny(ref.where)}
    file = _file(ref, recipe.model.revision)
    if file is not None and file.is_file():
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return values
    if recipe.model.base_model in architecture.catalogue():
        return dict(architecture.catalogue()[recipe.model.base_model]["config"])
    message = f"no config.json of {recipe.model.base_model} is on this machine"
    raise UsageError(message, "download the model, or name a folder that holds one")


def _file(ref: ModelRef, revision: str | None) -> Path | None:
    if ref.kind == "folder":
        return ref.path / "config.json"
    folder = snapshot(ref.where, revision)
    return None if folder is None else folder / "config.json"
