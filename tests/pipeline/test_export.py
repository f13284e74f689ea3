"""Exports alone: of a run that has finished, and of a model that was trained elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

GGUF = ("--set", "quantization.export=[{method: gguf, type: Q8_0}]", "--set", "quantization.max_perplexity_increase=9")
LIBRARIES = ("gptqmodel", "llama_cpp", "peft", "transformers")
BOTH = (
    *(
        "--set",
        "quantization.export=[{method: gguf, type: Q8_0}, {method: gptq, group_size: 32, calibration: {samples: 8}}]",
    ),
    *("--set", "quantization.max_perplexity_increase=9"),
)
STAGES = "merge,quantize,package"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def exported(finished: Path, project: Path, sysml_run: Any) -> tuple[Path, str]:
    """A copy of the finished run to which an export was added, and what the command printed."""
    run = project / "runs-export" / "tiny" / finished.name
    shutil.copytree(finished, run)
    return run, sysml_run("tiny.yaml", "--only", STAGES, "--resume", str(run), *BOTH).stdout


def test_a_finished_run_gets_another_export_without_training(exported: tuple[Path, str], finished: Path) -> None:
    run, printed = exported
    assert "the exports have changed: package, report to be done again\n" in printed
    assert "merge: done before\n" in printed
    for stage in ("prepare", "train", "evaluate", "merge"):
        assert read(run / f"records/{stage}.json") == read(finished / f"records/{stage}.json")
    assert (run / "model/adapter_model.safetensors").read_bytes() == (
        finished / "model/adapter_model.safetensors"
    ).read_bytes()
    assert read(run / "status.json")["state"] == "partial"
    assert {path.name for path in (run / "package/quantized/gguf-Q8_0").iterdir()} == {"tiny-Q8_0.gguf", "Modelfile"}
    exports = read(run / "recipe.json")["values"]["quantization"]["export"]
    assert [export["method"] for export in exports] == ["gguf", "gptq"]


def test_what_is_done_is_said(exported: tuple[Path, str], sysml_run: Any) -> None:
    run, _ = exported
    printed = sysml_run("tiny.yaml", "--resume", str(run), "--only", "evaluate,report", *BOTH).stdout
    assert "evaluate: done before\n" in printed
    assert read(run / "status.json")["state"] == "done"
    assert sysml_run("verify", str(run)).stdout.endswith("every byte as it was written\n")


def test_the_training_itself_cannot_change(exported: tuple[Path, str], sysml_run: Any) -> None:
    run, _ = exported
    done = sysml_run("tiny.yaml", "--resume", str(run), "--set", "quantization.export=[]", "--set", "seed=1", code=2)
    assert "the recipe has changed" in done.stderr


def test_every_snippet_of_the_card_runs(exported: tuple[Path, str], env: Mapping[str, str], tmp_path: Path) -> None:
    run, _ = exported
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    snippets = re.findall(r"```python\n(.*?)```", (run / "package/README.md").read_text(), re.DOTALL)
    assert [next(name for name in LIBRARIES if name in code) for code in snippets] == [
        "transformers",
        "peft",
        "llama_cpp",
        "gptqmodel",
    ]
    shutil.copytree(run / "package", tmp_path / "package")  # GPTQModel writes a log where it is run
    base = read(run / "model/adapter_config.json")["base_model_name_or_path"]
    for code in snippets:
        if "llama_cpp" in code:
            pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
        text = code.replace('base = "tiny:llama"', f"base = {base!r}")
        done = subprocess.run(
            [sys.executable, "-c", text], env=bare, cwd=tmp_path / "package", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_verify_names_the_file_with_one_flipped_bit(exported: tuple[Path, str], sysml_run: Any, tmp_path: Path) -> None:
    run, _ = exported
    sysml_run("package", str(run), "--out", str(tmp_path / "out"))
    file = tmp_path / "out/quantized/gguf-Q8_0/tiny-Q8_0.gguf"
    assert sysml_run("verify", str(tmp_path / "out")).returncode == 0
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 0x04]))
    done = sysml_run("verify", str(tmp_path / "out"), code=1)
    assert done.stdout.splitlines()[1:] == ["  quantized/gguf-Q8_0/tiny-Q8_0.gguf: changed"]


def test_an_adapter_trained_elsewhere_is_merged_quantized_and_packaged(
    project: Path, finished: Path, sysml_run: Any
) -> None:
    arguments = ("--runs", "runs-else", "--set", f"model.trained={finished / 'model'}", *GGUF)
    printed = sysml_run("tiny.yaml", "--only", STAGES, *arguments).stdout
    assert "train: nothing; model was trained elsewhere\n" in printed
    (run,) = (project / "runs-else/tiny").iterdir()
    assert {path.stem for path in (run / "records").iterdir()} == {"prepare", "train", "merge", "quantize", "package"}
    name = "model.safetensors"
    assert (run / "merged" / name).read_bytes() == (finished / "merged" / name).read_bytes()
    card = (run / "package/README.md").read_text()
    assert "A LoRA adapter that was trained elsewhere" in card
    assert (run / "package/quantized/gguf-Q8_0/tiny-Q8_0.gguf").is_file()


def test_so_are_whole_weights(project: Path, finished: Path, sysml_run: Any) -> None:
    elsewhere = ("--set", f"model.trained={finished / 'merged'}", "--set", "lora=null")
    sysml_run("tiny.yaml", "--only", "quantize,package", "--runs", "runs-whole", *elsewhere, *GGUF)
    (run,) = (project / "runs-whole/tiny").iterdir()
    name = "model.safetensors"
    assert (run / "package" / name).read_bytes() == (finished / "merged" / name).read_bytes()
    assert "A model that was trained elsewhere, merged." in (run / "package/README.md").read_text()


def test_without_a_run_and_without_a_model_it_says_what_to_type(sysml_run: Any) -> None:
    done = sysml_run("tiny.yaml", "--only", STAGES, "--runs", "runs-none", *GGUF, code=2)
    assert "merge wants a run that has trained" in done.stderr
    assert "model.trained" in done.stderr


def test_a_relative_folder_to_publish_in_stays_where_it_was_named(
    finished: Path, project: Path, sysml_run: Any, env: Mapping[str, str], tmp_path: Path
) -> None:
    run = project / "runs-published" / "tiny" / finished.name
    shutil.copytree(finished, run)
    publish = ("--set", "artifacts.dir=models/tiny")
    sysml_run("tiny.yaml", "--resume", str(run), "--until", "merge", *publish)
    command = [sys.executable, "-m", "sysml_run.cli", str(project / "tiny.yaml"), "--resume", str(run), *publish]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    assert (project / "models/tiny/manifest.json").is_file()
    assert not (tmp_path / "models").exists()
