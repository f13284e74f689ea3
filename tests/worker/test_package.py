"""The package stage: loads offline, says what it is, checks out, and never overwrites what is not ours."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from sysml_run import copies, document, manifest, resolve, rules, validate, verification
from sysml_run.errors import StageError
from sysml_run.rundir import PARTIAL, RunDir, read_json, write_json
from sysml_run.worker import asrun, package, weights

from . import finished_run

NAMES = ("gguf-Q8_0", "gptq-4bit-g128")
FRESH = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning"}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A real Llama of 0.6 million random numbers, saved by transformers with its tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(code: str, folder: Path) -> str:
    """What a fresh process prints that knows nothing of us and reaches no hub."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=FRESH, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def front_and_body(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def test_the_snippet_of_the_card_runs_offline(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    record = package.run(recipe, rundir)
    code = re.findall(r"```python\n(.*?)```", front_and_body(rundir.package)[1], re.DOTALL)
    assert run(code[0], rundir.package).strip()
    assert record["files"] == len(list(rundir.package.iterdir()))
    assert record["weights_split_anew"] is False
    assert record["left_out"] == []


def test_the_snippet_runs_from_anywhere_with_the_folders_path(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model, evaluation={"generate": {"rows": 4, "max_new_tokens": 4}})
    package.run(recipe, rundir)
    code = re.findall(r"```python\n(.*?)```", front_and_body(rundir.package)[1], re.DOTALL)[0]
    assert run(code.replace('folder = "."', f"folder = {str(rundir.package)!r}"), Path("/")).strip()


def test_the_card_says_what_it_is(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    package.run(recipe, rundir)
    front, body = front_and_body(rundir.package)
    assert front["license"] == "apache-2.0"
    assert front["language"] == ["en"]
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-generation"
    assert front["tags"] == ["sysml-run", "lora", "conversational"]
    assert "| severity accuracy | 0.0 % | 81.2 % | +81.2 points; always the commonest answer: 46.5 % |" in body
    assert f"`{'ab' * 32}`" in body
    assert "346 rows" in body
    assert "{{ finding | tojson }}" in body


def test_an_unknown_licence_is_called_unknown(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model, lora=None)
    record = read_json(rundir.record("train"))
    write_json(rundir.record("train"), record | {"base": {"base_model": "/home/me/models/llama-x", "kind": "folder"}})
    package.run(recipe, rundir)
    front, body = front_and_body(rundir.package)
    assert front["license"] == "unknown"
    assert "language" not in front
    assert front["base_model"] == "llama-x"
    assert front["tags"][1] == "full-fine-tune"
    assert "unknown, see the base model" in body


def test_the_card_does_not_flatter(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    data = read_json(rundir.data / "report.json")
    data["leakage"]["validation"] |= {"masked": 82, "masked_share": 0.953}
    write_json(rundir.data / "report.json", data)
    found = read_json(rundir.evaluation)
    found["after"]["severity.accuracy"] = 0.4
    write_json(rundir.evaluation, found)
    package.run(recipe, rundir)
    body = front_and_body(rundir.package)[1]
    assert "- Its severity accuracy is no better than always giving the commonest answer." in body
    assert "- 95.3 % of the validation rows stand in training but for numbers and hex" in body


def test_conversations_and_several_datasets_have_their_prompts_told_apart(tmp_path: Path, model: Path) -> None:
    datasets = [{"path": f"{name}.json", "type": name} for name in ("messages", "sysscan.finding", "prompt_completion")]
    recipe, rundir = finished_run.make(tmp_path / "several", model, datasets=datasets)
    package.run(recipe, rundir)
    body = front_and_body(rundir.package)[1]
    assert "Rows of sysscan.finding.json:" in body
    assert "Rows of prompt_completion.json:" in body
    recipe, rundir = finished_run.make(tmp_path / "one", model, datasets=datasets[:1])
    package.run(recipe, rundir)
    assert "The rows came as conversations" in front_and_body(rundir.package)[1]


def test_text_of_the_recipe_cannot_break_the_card(tmp_path: Path, model: Path) -> None:
    prompt = {"system": "Be | brief", "prompt": "````\n{{ finding }}\n```", "completion": "{{ severity }}"}
    dataset = {"path": "a|b.json", "type": "sysscan.finding", "map": prompt}
    recipe, rundir = finished_run.make(tmp_path, model, datasets=[dataset], description="<script>x</script> --- a|b")
    package.run(recipe, rundir)
    front, body = front_and_body(rundir.package)
    assert front["library_name"] == "transformers"
    assert "<script>" not in body
    assert "`````jinja\n````\n{{ finding }}\n```\n`````" in body


def test_checksums_hold_and_find_every_change(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    package.run(recipe, rundir)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=rundir.package, check=True)
    assert verification.verify(rundir.package) == []
    made = read_json(rundir.package / "manifest.json")
    assert made["created"] == finished_run.STARTED.format(1)
    assert made["data"] == [{"name": "findings.tar.gz", "bytes": 48213, "sha256": "ab" * 32}]
    assert made["recipe_sha256"] == manifest.sha256(rundir.package / "recipe.json")
    assert made["versions"]["torch"] == "2.13.0"


def test_the_same_run_packs_to_the_same_bytes(tmp_path: Path, model: Path) -> None:
    sums = []
    for name in ("one", "two"):
        recipe, rundir = finished_run.make(tmp_path / name, model)
        package.run(recipe, rundir)
        sums.append((rundir.package / "SHA256SUMS").read_text())
    assert sums[0] == sums[1]


def test_no_folder_of_this_machine_and_no_row_is_packed(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model, artifacts={"dir": str(tmp_path / "out")})
    package.run(recipe, rundir)
    for path in rundir.package.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
        assert b"PRIVATE ROW" not in path.read_bytes(), path.name
    sources = read_json(rundir.package / "recipe.json")["sources"]
    assert re.fullmatch(r"quickstart.yaml:\d+", sources["datasets.0.path"])


def test_the_packed_recipe_can_be_run_again(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    package.run(recipe, rundir)
    shutil.copy(tmp_path / "here" / "findings.tar.gz", rundir.package)
    again = document.load(rundir.package / "recipe.yaml")
    assert validate.check(again) == []
    resolved = resolve.resolve(again)
    assert list(rules.check(resolved.recipe, again, running=False)) == []
    assert resolved.recipe.optimizer == recipe.optimizer
    assert resolved.recipe.training.gradient_accumulation_steps == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/recipes/x.yaml:16", "x.yaml:16"),
        ("--set datasets.0.path=/home/me/rows.json", "--set datasets.0.path"),
        ("--hardware cpu:2", "--hardware cpu:2"),
        ("default", "default"),
        ("derived: 8 / 4 rows a step", "derived: 8 / 4 rows a step"),
    ],
)
def test_sources_lose_their_folders(text: str, shown: str) -> None:
    assert asrun.source(text) == shown


def test_only_paths_are_shortened() -> None:
    values = {
        "prompt": {"template": "/think {{ x }}"},
        "model": {"base_model": "package:a/b.gguf", "tokenizer": "/m/t"},
        "datasets": [{"path": "/rows/*.json", "where": "/a/b"}],
    }
    shown = asrun.values(values)
    assert shown["prompt"] == values["prompt"]
    assert shown["model"] == {"base_model": "package:a/b.gguf", "tokenizer": "t"}
    assert shown["datasets"] == [{"path": "*.json", "where": "/a/b"}]


def test_large_weights_are_split_and_load_the_same(tmp_path: Path, model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    recipe, rundir = finished_run.make(tmp_path, model, lora=None, artifacts={"max_shard_size": "1MB"})
    assert package.run(recipe, rundir)["weights_split_anew"] is True
    shards = sorted(rundir.package.glob("*.safetensors"))
    assert len(shards) == 3
    assert all(shard.stat().st_size < 1_010_000 for shard in shards)
    loaded = AutoModelForCausalLM.from_pretrained(rundir.package).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors(model).items())
    assert verification.verify(rundir.package) == []


def test_shards_of_the_right_size_are_left_as_they_are(tmp_path: Path, model: Path) -> None:
    from transformers import AutoModelForCausalLM

    split = tmp_path / "split"
    shutil.copytree(model, split, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(split, max_shard_size="1MB")
    recipe, rundir = finished_run.make(tmp_path / "run", split, artifacts={"max_shard_size": "1MB"})
    assert package.run(recipe, rundir)["weights_split_anew"] is False
    names = {path.name: path.read_bytes() for path in split.glob("model*")}
    assert len(names) > 2
    assert names == {path.name: path.read_bytes() for path in rundir.package.glob("model*")}


def test_a_later_write_into_merged_leaves_the_package_whole(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    package.run(recipe, rundir)
    with (rundir.merged / "model.safetensors").open("r+b") as file:
        file.write(b"changed")
    assert verification.verify(rundir.package) == []


def test_an_inline_template_travels_with_the_model(tmp_path: Path, model: Path) -> None:
    from transformers import AutoTokenizer

    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    recipe, rundir = finished_run.make(tmp_path, model, prompt={"template": template})
    package.run(recipe, rundir)
    tokenizer = AutoTokenizer.from_pretrained(rundir.package)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "[user] hi\n"


def test_weights_without_a_tokenizer_are_not_packed(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    for path in rundir.merged.glob("*token*"):
        path.unlink()
    with pytest.raises(StageError, match="no tokenizer came with the weights"):
        package.run(recipe, rundir)
    assert [path.name for path in rundir.path.glob("*package*")] == []


def test_generation_stops_at_the_tokenizers_end(tmp_path: Path, model: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    recipe, rundir = finished_run.make(tmp_path, model)
    write_json(rundir.merged / "generation_config.json", {"_from_model_config": True, "eos_token_id": 7})
    package.run(recipe, rundir)
    tokenizer, settings = (kind.from_pretrained(rundir.package) for kind in (AutoTokenizer, GenerationConfig))
    assert settings.eos_token_id == [tokenizer.eos_token_id, 7]
    assert settings.pad_token_id == tokenizer.pad_token_id


def test_what_has_no_place_is_left_out_and_named(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    (rundir.merged / "README.md").write_text("a card of another tool")
    (rundir.merged / "modeling_x.py").write_text("import os")
    (rundir.merged / "training_args.bin").write_bytes(b"\x80\x04.")  # a pickle, of no weights
    left_out = ["README.md", "modeling_x.py", "training_args.bin"]
    assert package.run(recipe, rundir)["left_out"] == left_out
    assert not any((rundir.package / name).exists() for name in left_out[1:])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt"])
def test_pickles_are_refused_by_name(tmp_path: Path, model: Path, name: str) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    (rundir.merged / name).write_bytes(b"\x80\x04.")
    with pytest.raises(StageError, match=f"pickled files, which are not packed: {name}"):
        package.run(recipe, rundir)
    assert not rundir.package.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\xff" * 20, b"\x02" + b"\0" * 7 + b"{}"])
def test_broken_weights_are_refused(tmp_path: Path, model: Path, content: bytes) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    (rundir.merged / "model.safetensors").write_bytes(content)
    with pytest.raises(StageError, match="not a whole safetensors file"):
        package.run(recipe, rundir)


def test_weights_cut_short_are_refused(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    os.truncate(rundir.merged / "model.safetensors", 100_000)
    with pytest.raises(StageError, match="not a whole safetensors file"):
        package.run(recipe, rundir)


def test_a_missing_shard_is_named(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    write_json(rundir.merged / weights.INDEX, {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    with pytest.raises(StageError, match=r"lacks model-2\.safetensors"):
        package.run(recipe, rundir)


def test_no_weights_and_no_folder_say_which_stage(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    with pytest.raises(StageError) as caught:
        package.run(recipe, rundir)
    assert caught.value.hint == "run the merge stage first"
    rundir.merged.mkdir()
    with pytest.raises(StageError, match=r"holds no \.safetensors file"):
        package.run(recipe, rundir)


class TestQuantized:
    """Copies of `quantized/`, the adapter, and how the card says to load them."""

    EXPORT: ClassVar[Any] = {"export": [{"method": "gguf", "type": "Q8_0"}, {"method": "gptq"}]}
    WHOLE: ClassVar[Any] = {
        "bytes": 4_000_000, "bits_per_weight": 32.0, "perplexity": 1.2, "load_seconds": 0.5, "tokens_per_second": 40.0,
        "reader": "transformers", "metrics": {"severity.accuracy": 0.5},
    }  # fmt: skip
    FIGURES: ClassVar[Any] = {**WHOLE, "perplexity": 1.25, "bytes": 1_100_000, "reader": "llama-cpp-python",
        "perplexity_increase": 0.0417, "top_token_agreement": 0.99, "unquantized": WHOLE,
    }  # fmt: skip

    def made(self, tmp_path: Path, model: Path, **sections: Any) -> tuple[Any, RunDir]:
        recipe, rundir = finished_run.make(tmp_path, model, quantization=self.EXPORT, **sections)
        for name, files in {"gguf-Q8_0": ["m.gguf"], "gptq-4bit-g128": ["config.json", "model.safetensors"]}.items():
            (rundir / "quantized" / name).mkdir(parents=True)
            for file in files:
                (rundir / "quantized" / name / file).write_text(json.dumps({"_name_or_path": str(tmp_path), "a": 1}))
        write_json(rundir.record("quantize"), {"started": finished_run.STARTED.format(6), "seconds": 2.0})
        found = read_json(rundir.evaluation)
        write_json(rundir.evaluation, found | {"quantized": dict.fromkeys(NAMES, self.FIGURES)})
        return recipe, rundir

    def test_they_are_packed_under_the_names_of_the_run(self, tmp_path: Path, model: Path) -> None:
        recipe, rundir = self.made(tmp_path, model)
        record = package.run(recipe, rundir)
        packed = rundir.package / "quantized"
        found = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
        gptq = {"gptq-4bit-g128/config.json", "gptq-4bit-g128/model.safetensors"}
        assert found == {"gguf-Q8_0/m.gguf", "gguf-Q8_0/Modelfile", *gptq}
        assert read_json(packed / "gptq-4bit-g128" / "config.json") == {"a": 1}
        assert verification.verify(rundir.package) == []
        assert record["files"] == sum(path.is_file() for path in rundir.package.rglob("*"))
        text = (packed / "gguf-Q8_0" / "Modelfile").read_text()
        assert text.startswith("FROM ./m.gguf\nTEMPLATE ")
        assert "PARAMETER num_ctx 256\n" in text

    def test_the_card_says_what_was_measured_and_how_to_load_each(self, tmp_path: Path, model: Path) -> None:
        recipe, rundir = self.made(tmp_path, model)
        package.run(recipe, rundir)
        body = front_and_body(rundir.package)[1]
        assert (
            "| | unquantized | gguf-Q8_0 | gptq-4bit-g128 |\n| --- | ---: | ---: | ---: |\n| Size | 4.0 MB | 1.1 MB |"
            in body
        )
        assert "| Perplexity | 1.2 | 1.25 | 1.25 |" in body
        assert "| Severity accuracy | 50.0 % | 50.0 % | 50.0 % |" in body
        assert 'Llama(f"{folder}/quantized/gguf-Q8_0/m.gguf", n_ctx=256, verbose=False)' in body
        assert "ollama create quickstart -f quantized/gguf-Q8_0/Modelfile" in body
        assert 'GPTQModel.load(f"{folder}/quantized/gptq-4bit-g128", device="cpu")' in body
        for code in re.findall(r"```python\n(.*?)```", body, re.DOTALL):
            compile(code, "README.md", "exec")

    def test_a_copy_that_was_not_made_is_named(self, tmp_path: Path, model: Path) -> None:
        recipe, rundir = self.made(tmp_path, model)
        shutil.rmtree(rundir / "quantized" / "gptq-4bit-g128")
        with pytest.raises(StageError, match="gptq-4bit-g128 is not there yet") as caught:
            package.run(recipe, rundir)
        assert caught.value.hint == "run the quantize stage first"
        assert not rundir.package.exists()

    def test_pickles_among_them_are_refused(self, tmp_path: Path, model: Path) -> None:
        recipe, rundir = self.made(tmp_path, model)
        (rundir / "quantized" / "gptq-4bit-g128" / "x.pt").write_bytes(b"")
        with pytest.raises(StageError, match=r"not packed: x\.pt"):
            package.run(recipe, rundir)
        assert not rundir.package.exists()


@pytest.mark.parametrize("own", ["ann/base", "/home/ann/base", None])
def test_an_adapter_from_elsewhere_keeps_the_name_of_its_base(tmp_path: Path, model: Path, own: str | None) -> None:
    """A folder of its maker's machine is no name."""
    recipe, rundir = finished_run.make(tmp_path, model)
    recipe = replace(recipe, model=replace(recipe.model, trained="/home/ann/adapter"))
    rundir.model.mkdir(exist_ok=True)
    shutil.copyfile(model / "model.safetensors", rundir.model / "adapter_model.safetensors")
    write_json(rundir.model / "adapter_config.json", {"base_model_name_or_path": own})
    package.run(recipe, rundir)
    kept = "ann/base" if own == "ann/base" else "tiny:llama"
    assert read_json(rundir.package / "adapter" / "adapter_config.json")["base_model_name_or_path"] == kept


def test_the_adapter_alone_loads_on_a_base_that_somebody_has(tmp_path: Path, model: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    recipe, rundir = finished_run.make(tmp_path, model)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(rundir.model)
    package.run(recipe, rundir)
    names = {path.name for path in (rundir.package / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    assert str(model).encode() not in (rundir.package / "adapter" / "adapter_config.json").read_bytes()
    (code,) = (
        each
        for each in re.findall(r"```python\n(.*?)```", front_and_body(rundir.package)[1], re.DOTALL)
        if "peft" in each
    )
    code = code.replace('base = "tiny:llama"', f"base = {str(model)!r}") + "print(type(model).__name__)"
    assert run(code, rundir.package).endswith("PeftModel\n")


def test_the_card_claims_nothing_of_a_training_elsewhere(tmp_path: Path, model: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path, model)
    train = {
        "base": {"base_model": "own/base"},
        "elsewhere": {"name": "mine", "adapter": True, "sha256": {"a": "ef" * 32}},
    }
    write_json(rundir.record("train"), train)
    package.run(recipe, rundir)
    front, body = front_and_body(rundir.package)
    assert "A LoRA adapter that was trained elsewhere, merged into own/base." in body
    assert "346 rows of one kind" not in body
    assert "Optimizer" not in body
    assert f"| sha256 | {'ef' * 32} |" in body
    assert front["tags"][1] == "lora"


def test_a_full_disk_leaves_no_package(tmp_path: Path, model: Path) -> None:
    """No file of the process may have more than 100 kB: copied or split anew, the weights do not fit."""
    for name, sections in (("copied", {}), ("split", {"artifacts": {"max_shard_size": "1MB"}})):
        _, rundir = finished_run.make(tmp_path / name, model, **sections)
        code = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        code += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); from sysml_run.worker import __main__; "
        code += f"sys.exit(__main__.main(['package', {str(rundir.path)!r}]))"
        env = {**FRESH, "PYTHONPATH": str(Path(manifest.__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.returncode == 1, name
        assert "cannot be written: File too large" in read_json(rundir.error)["message"]
        assert "Traceback" not in done.stderr
        assert [path.name for path in rundir.path.glob("*package*")] == []


class TestPublishing:
    """`artifacts.dir` receives a copy, whole or not at all, and only in place of a package of ours."""

    def made(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, RunDir, Path]:
        monkeypatch.chdir(tmp_path)
        recipe, rundir = finished_run.make(tmp_path / "run", model, artifacts={"dir": "models/out"})
        return recipe, rundir, tmp_path / "models" / "out"

    def test_relative_to_the_current_folder(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        assert package.run(recipe, rundir)["published"] == str(target)
        assert verification.verify(target) == []
        assert (target / "SHA256SUMS").read_bytes() == (rundir.package / "SHA256SUMS").read_bytes()

    def test_an_older_package_is_replaced(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        package.run(recipe, rundir)
        (target / "model.safetensors").write_bytes(b"older")
        left = target.parent / f"{PARTIAL}out-x1"
        left.mkdir()
        package.run(recipe, rundir)
        assert verification.verify(target) == []
        assert [path.name for path in target.parent.iterdir()] == ["out"]

    def test_an_empty_folder_is_used(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        target.mkdir(parents=True)
        package.run(recipe, rundir)
        assert verification.verify(target) == []

    @pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
    def test_a_folder_of_others_is_kept(
        self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        target.mkdir(parents=True)
        (target / name).write_text(json.dumps({"name": "a web app"}))
        with pytest.raises(StageError, match=r"is not overwritten: .*manifest\.json") as caught:
            package.run(recipe, rundir)
        assert "artifacts.dir" in str(caught.value.hint)
        assert [path.name for path in target.iterdir()] == [name]
        assert not rundir.package.exists()

    def test_a_file_beside_an_older_package_is_kept(
        self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        package.run(recipe, rundir)
        (target / "notes.txt").write_text("mine")
        with pytest.raises(StageError, match=r"not part of the package: notes\.txt"):
            package.run(recipe, rundir)
        assert (target / "notes.txt").read_text() == "mine"

    def test_a_file_in_the_way(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        target.parent.mkdir()
        target.write_text("a file")
        with pytest.raises(StageError, match="it is a file"):
            package.run(recipe, rundir)

    def test_a_home_of_nobody(self, tmp_path: Path, model: Path) -> None:
        recipe, rundir = finished_run.make(tmp_path, model, artifacts={"dir": "~nobody-of-that-name/x"})
        with pytest.raises(StageError, match=r"artifacts\.dir: "):
            package.run(recipe, rundir)

    def test_a_copy_that_is_not_the_package_is_not_published(
        self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        package.run(recipe, rundir)
        before = (target / "SHA256SUMS").read_bytes()
        (rundir.package / "config.json").write_text("{}")
        with pytest.raises(StageError, match=r"is not the package: config\.json: changed"):
            package.hand_over(rundir.package, target)
        assert (target / "SHA256SUMS").read_bytes() == before
        assert verification.verify(target) == []

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, rundir, target = self.made(tmp_path, model, monkeypatch)
        package.run(recipe, rundir)
        shutil.rmtree(target)

        def full(source: Path, copy: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(copies, "clone", full)
        with pytest.raises(StageError, match="cannot be written: No space left on device"):
            package.hand_over(rundir.package, target)
        assert list(target.parent.iterdir()) == []
