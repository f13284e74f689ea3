"""What a run has left so far, read once: the package and the report are made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run.rundir import RunDir, read_json
from sysml_run.summary import records


@dataclass(frozen=True)
class Outcome:
    """Parts that do not exist yet, or that the recipe does not ask for, are empty."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    records: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Any]
    metrics: list[dict[str, Any]]
    evaluation: Mapping[str, Any]
    generations: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    shown: list[dict[str, Any]]

    @property
    def train(self) -> Mapping[str, Any]:
        return self.records.get("train", {})

    @property
    def base(self) -> Mapping[str, Any]:
        """Name, kind, licence and digest of the base model, as training recorded them."""
        return self.train.get("base") or {"base_model": self.values["model"]["base_model"]}

    @property
    def base_name(self) -> str:
        """The hub id, or the name of the file or folder without where it lies on this machine."""
        name = str(self.base["base_model"])
        local = self.base.get("kind") in ("folder", "gguf") or name.endswith(".gguf") or Path(name).is_absolute()
        return Path(name).name.removesuffix(".gguf") if local else name

    @property
    def method(self) -> str:
        """`LoRA, rank 16`, `LoRA, rank 16, on a base in nf4` or `full fine-tune`; it may have been done elsewhere."""
        lora = self.values.get("lora")
        if self.elsewhere:
            return f"LoRA, rank {lora['r']}, trained elsewhere" if lora else "trained elsewhere"
        base = f", on a base in {self.load}" if self.load else ""
        return f"LoRA, rank {lora['r']}{base}" if lora else "full fine-tune"

    @property
    def elsewhere(self) -> str | None:
        """The name of the model that was trained elsewhere; None where this run trained one."""
        found: str | None = self.train.get("elsewhere", {}).get("name")
        return found

    @property
    def load(self) -> str | None:
        """`nf4` or `int8`, which training held the base in; None where it was not quantized."""
        found: str | None = self.values.get("quantization", {}).get("load")
        return found

    def rows(self, split: str) -> int:
        """Rows of a split; 0 when that is not known."""
        return int(self.data.get("splits", {}).get(split, {}).get("rows", 0))


def read(rundir: RunDir) -> Outcome:
    """Everything there is; a last line that a killed process left half-written is passed over."""
    recipe = read_json(rundir.recipe)
    return Outcome(
        values=recipe["values"],
        sources=recipe.get("sources", {}),
        records=records(rundir),
        data=_object(rundir.data / "report.json"),
        metrics=_lines(rundir.metrics),
        evaluation=_object(rundir.evaluation),
        generations=_lines(rundir / "generations.jsonl"),
        worst=_lines(rundir / "worst_rows.jsonl"),
        shown=list(read_json(rundir.data / "shown.json")) if (rundir.data / "shown.json").is_file() else [],
    )


def _object(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
