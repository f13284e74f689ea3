"""Quantized copies of a tiny trained model: what a run leaves, and what stops one, before it starts or at the step."""

import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, read

pytestmark = pytest.mark.slow

AGENT = "sys-scan-agent==7.0.0"
ASK = """
import sys
from sys_scan_agent import models
from sys_scan_agent.providers.local_qwen_provider import LocalQwenLLMProvider
provider = LocalQwenLLMProvider(model_dir=sys.argv[1])
reductions = models.Reductions(top_findings=[{"title": "host 7 is odd", "severity": "high"}])
summaries, metadata = provider.summarize(reductions, [], [])
assert metadata.error_message is None and metadata.provider_name == "local-agent", metadata
assert provider._model is not None, "it fell back to its heuristics"
print(summaries.executive_summary)
"""
EXPORTS = "quantization.export=[{method: gguf}, {method: gptq, group_size: 32, calibration: {samples: 8}}]"
FIGURES = {
    *("reader", "perplexity", "perplexity_increase", "max_perplexity_increase", "top_token_agreement", "rows"),
    *("tokens", "metrics", "bytes", "bits_per_weight", "load_seconds", "tokens_per_second", "unquantized"),
}


@pytest.fixture(scope="module")
def merged(project: Path, sysml_run: Run) -> Path:
    """A run that has its merged weights, and nothing after that."""
    sysml_run("tiny.yaml", "--runs", "runs-quantized", "--set", EXPORTS, "--until", "merge")
    (folder,) = (project / "runs-quantized/tiny").iterdir()
    return folder


@pytest.fixture(scope="module")
def whole(merged: Path, sysml_run: Run) -> tuple[Path, str]:
    """The same run gone on with to its end, and what it printed."""
    done = sysml_run("tiny.yaml", "--runs", "runs-quantized", "--set", EXPORTS, "--resume", merged.name)
    return merged, done.stdout


def test_every_copy_is_measured(whole: tuple[Path, str], project: Path) -> None:
    folder, printed = whole
    assert not (project / "logs").exists()  # GPTQModel would leave its own there
    copies = read(folder / "evaluation.json")["quantized"]
    assert list(copies) == ["gguf-Q4_K_M", "gptq-4bit-g32"]
    for name, figures in copies.items():
        assert set(figures) >= FIGURES
        assert abs(figures["perplexity_increase"]) < 0.01
        assert figures["top_token_agreement"] > 0.9
        assert 0 < figures["bits_per_weight"] < 16 < figures["unquantized"]["bits_per_weight"]
        assert set(figures["metrics"]) == set(figures["unquantized"]["metrics"]) > {"json_valid"}
        assert f"quantize: {name}: " in printed
    assert "12 tensors with rows of 64 are in Q5_0: Q4_K takes rows of a multiple of 256" in printed
    assert "INFO" not in printed
    assert "Quantized copies" in (folder / "report.html").read_text()


def test_the_record_has_the_rows_and_an_answer(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    copies = read(folder / "records/quantize.json")["copies"]
    assert len(copies["gptq-4bit-g32"]["calibration"]) == 8
    assert copies["gguf-Q4_K_M"]["tokenizer"] == "gpt-2"
    for facts in copies.values():
        assert facts["prompt"].startswith("<|im_start|>user\nfinding")
        assert isinstance(facts["answer"], str)
    assert not list(folder.rglob(".partial-*"))


def test_llama_cpp_answers_as_trained(whole: tuple[Path, str]) -> None:
    """The file alone: template, ends of answers and begin token are in it."""
    llama_cpp = pytest.importorskip("llama_cpp")
    folder, _ = whole
    (path,) = (folder / "quantized/gguf-Q4_K_M").iterdir()
    model = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False)
    chat = [{"role": "user", "content": "finding 1: the state of host 7 is odd"}]
    done = model.create_chat_completion(chat, max_tokens=8, temperature=0)
    assert done["usage"]["completion_tokens"] > 0
    assert model.token_eos() == model.tokenize(b"<|im_end|>", add_bos=False, special=True)[0]
    assert model.metadata["tokenizer.ggml.add_bos_token"] == "false"
    assert "generation" not in model.metadata["tokenizer.chat_template"].replace("add_generation_prompt", "")
    model.close()


def stage(folder: Path, env: Mapping[str, str], limit: int | None = None) -> dict[str, Any]:
    """Run the quantize stage by hand, files not growing beyond `limit` bytes; gives what it leaves when it fails."""

    def narrow() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "sysml_run.worker", "quantize", str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, preexec_fn=narrow)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not (folder / "records/quantize.json").exists()
    return dict(read(folder / "error.json"))


@pytest.fixture
def copy(merged: Path, tmp_path: Path) -> Callable[..., Path]:
    """The run before its copies, with other exports and limit."""

    def make(*exports: dict[str, Any], limit: float | None = None) -> Path:
        folder = Path(shutil.copytree(merged, tmp_path / "run"))
        shutil.rmtree(folder / "quantized", ignore_errors=True)
        for name in ("quantize", "package", "report"):
            (folder / f"records/{name}.json").unlink(missing_ok=True)
        recipe = read(folder / "recipe.json")
        every = [{"calibration": None} | export for export in exports]
        recipe["values"]["quantization"] |= {"export": every, "max_perplexity_increase": limit}
        (folder / "recipe.json").write_text(json.dumps(recipe))
        return folder

    return make


def test_a_copy_that_is_worse_than_allowed_is_not_kept(copy: Callable[..., Path], env: Mapping[str, str]) -> None:
    folder = copy({"method": "gguf", "type": "Q4_K_M"}, limit=-0.5)
    error = stage(folder, env)
    assert error["message"].startswith("gguf-Q4_K_M: perplexity rises from ")
    assert "where -50 % are allowed" in error["message"]
    assert "quantization.max_perplexity_increase" in error["hint"]
    assert list((folder / "quantized").iterdir()) == []


def test_a_full_disk_leaves_nothing(copy: Callable[..., Path], env: Mapping[str, str]) -> None:
    folder = copy({"method": "gguf", "type": "F16"})
    error = stage(folder, env, limit=200_000)
    assert error["message"] == f"{folder}/quantized/gguf-F16 cannot be written: no room is left"
    assert "--resume" in error["hint"]
    assert list((folder / "quantized").iterdir()) == []


def test_without_llama_cpp_the_numbers_of_the_file_are_read(copy: Callable[..., Path], env: Mapping[str, str]) -> None:
    folder = copy({"method": "gguf", "type": "Q8_0"})
    script = (
        "import sys\nsys.modules['llama_cpp'] = None\nfrom sysml_run.worker.__main__ import main\n"
        "raise SystemExit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "quantize", str(folder)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    figures = read(folder / "evaluation.json")["quantized"]["gguf-Q8_0"]
    assert figures["reader"].endswith("from the file's dequantized numbers")
    assert abs(figures["perplexity_increase"]) < 0.01
    assert "same_token_ids" not in figures
    assert [path.name for path in (folder / "quantized/gguf-Q8_0").iterdir()] == ["tiny-Q8_0.gguf"]


def test_one_model_at_a_time_is_in_memory(copy: Callable[..., Path], env: Mapping[str, str]) -> None:
    """When the first copy is begun, the model that copies are compared with is gone, without the garbage collector."""
    folder = copy({"method": "gguf", "type": "F16"})
    script = (
        "import gc, sys\nfrom sysml_run.worker import quantize\nfrom sysml_run.worker.__main__ import main\n"
        "def begun(*_):\n"
        "    from transformers import PreTrainedModel\n"
        "    print('models:', sum(issubclass(type(each), PreTrainedModel) for each in gc.get_objects()))\n"
        "    raise SystemExit(0)\n"
        "quantize.one = begun\nraise SystemExit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "quantize", str(folder)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert "models: 0\n" in done.stdout


def test_calibration_is_recorded_and_changes_the_file(
    whole: tuple[Path, str], copy: Callable[..., Path], env: Mapping[str, str]
) -> None:
    """The rows are those of the GPTQ copy; the same run without is the same file."""
    before = read(whole[0] / "records/quantize.json")["copies"]
    first = (whole[0] / "quantized/gguf-Q4_K_M/tiny-Q4_K_M.gguf").read_bytes()
    folder = copy({"method": "gguf", "type": "Q4_K_M"})
    for samples, same in ((None, True), (8, False)):
        recipe = read(folder / "recipe.json")
        calibration = None if samples is None else {"samples": samples}
        recipe["values"]["quantization"]["export"][0]["calibration"] = calibration
        (folder / "recipe.json").write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "sysml_run.worker", "quantize", str(folder)]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        assert ("calibrating on 8 training rows" in done.stdout) != same
        made = folder / "quantized/gguf-Q4_K_M/tiny-Q4_K_M.gguf"
        assert (made.read_bytes() == first, made.stat().st_size) == (same, len(first))
        record = folder / "records/quantize.json"
        facts = read(record)["copies"]["gguf-Q4_K_M"]
        record.unlink()  # else it is done before
        assert facts.get("calibration") == (None if same else before["gptq-4bit-g32"]["calibration"])
        assert read(folder / "evaluation.json")["quantized"]["gguf-Q4_K_M"]["top_token_agreement"] > 0.9


def refused(sysml_run: Run, *arguments: str) -> str:
    return sysml_run("tiny.yaml", "--runs", "runs-refused", *arguments, code=2).stderr


def test_what_cannot_be_made_is_refused_before_anything_runs(project: Path, sysml_run: Run) -> None:
    words = refused(sysml_run, "--set", "quantization.export=[{method: gguf, type: Q4_K_X}]")
    assert "quantization.export.0.type" in words
    assert "Q4_K_M" in words
    words = refused(sysml_run, "--set", "quantization.export=[{method: gptq, group_size: 33}]")
    assert "no kernel reads groups of this size" in words
    assert "write 32" in words
    assert not (project / "runs-refused").exists()


def test_a_missing_converter_is_refused_with_the_command(project: Path, env: Mapping[str, str]) -> None:
    script = (
        "import sys\nsys.modules['libgguf'] = None\nfrom sysml_run import cli\nraise SystemExit(cli.main(sys.argv[1:]))"
    )
    arguments = ["tiny.yaml", "--runs", "runs-refused", "--set", "quantization.export=[{method: gguf}]"]
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "export to gguf takes libgguf, not installed here" in done.stderr
    assert "pip install 'sysml-run[train]'" in done.stderr
    assert not (project / "runs-refused").exists()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_too_little_room_is_refused(project: Path, env: Mapping[str, str]) -> None:
    script = (
        "import sys\nfrom sysml_run import doctor\ndoctor.free = lambda folder: 1000\n"
        "from sysml_run.cli import main\nraise SystemExit(main(sys.argv[1:]))"
    )
    arguments = ["tiny.yaml", "--runs", "runs-refused", "--set", "quantization.export=[{method: gguf}]"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *arguments, *more]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)

    done = run()
    assert (done.returncode, "0.0 GB are free" in done.stderr) == (2, True)
    assert "--runs DIR" in done.stderr
    assert run("--until", "prepare").returncode == 0


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of its own with the agent, which wants other versions of what we use, and our llama-cpp-python."""
    folder = tmp_path_factory.mktemp("agent")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", AGENT]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{AGENT} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin/python"


def test_sys_scan_agent_answers_with_it(
    whole: tuple[Path, str], python: Path, env: Mapping[str, str], tmp_path: Path
) -> None:
    """A program that is not ours, and drives llama-cpp-python."""
    pytest.importorskip("llama_cpp")
    (path,) = (whole[0] / "quantized/gguf-Q4_K_M").iterdir()
    handed = shutil.copyfile(path, tmp_path / "model.gguf")
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-c", ASK, str(handed)], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
