"""A run directory with a package of a few small files: what `package` and `verify` see of a finished run."""

from pathlib import Path
from typing import Any

from sysml_run import manifest
from sysml_run.rundir import RunDir, write_json, write_text

CARD = "---\nlicense: apache-2.0\n---\n\n# A model\n"
FACTS: dict[str, Any] = {
    "name": "severity",
    "description": 'Severity of findings, "quoted"',
    "created": "2026-11-05T10:01:00+00:00",
    "base_model": {"name": "own/base", "license": "apache-2.0"},
    "versions": {"transformers": "5.23.0"},
}
EVALUATION = {"rows": 8, "before": {"loss": 2.0}, "after": {"loss": 0.25}}


def make(path: Path, **facts: Any) -> RunDir:
    """The run; `facts` replace those of its package's manifest."""
    rundir = RunDir(path)
    name = (FACTS | facts)["name"]
    write_json(rundir.recipe, {"values": {"name": name, "model": {"base_model": "own/base"}}, "sources": {}})
    write_json(rundir.evaluation, EVALUATION)
    write_json(rundir.record("package"), {"started": "2026-11-05T11:00:00+00:00", "seconds": 1.5, "published": None})
    write_json(path / "status.json", {"state": "done", "stage": None})
    folder = rundir.package
    write_text(folder / "README.md", CARD)
    write_json(folder / "evaluation.json", EVALUATION)
    (folder / "quantized" / "gguf-Q8_0").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "quantized" / "gguf-Q8_0" / "model.gguf").write_bytes(b"GGUF" * 3000)
    manifest.write(folder, FACTS | facts)
    return rundir
