"""What leaves the devices is what anybody's transformers and PEFT load, and what the other stages go on with."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from .conftest import Train, record

pytestmark = pytest.mark.slow
LOAD = """
import json, sys
from transformers import AutoModelForCausalLM
for folder in sys.argv[1:]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    print(json.dumps([str(model.dtype), *(sorted(info[name]) for name in ("missing_keys", "unexpected_keys"))]))
"""
ADAPTER = """
import sys
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1])
print(sum(bool(weight.abs().sum()) for name, weight in model.named_parameters() if "lora_B" in name))
"""


def plain(script: str, env: Mapping[str, str], *folders: Path) -> list[str]:
    """What a process of plain torch prints, without our own package."""
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH" and "XLA" not in key}
    command = [sys.executable, "-c", script, *map(str, folders)]
    done = subprocess.run(command, env={**bare, "USE_TORCH_XLA": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("method", "devices"), [("full", 8), ("mixtral", 8), ("lora", 4)])
def test_the_files_are_those_of_a_processor(method: str, devices: int, train: Train, topology: str | None) -> None:
    """The same names, with no wrapper's in front; Mixtral's as they are published."""
    runs = train(method, devices), train(method, 0)
    for inside in ("model", "checkpoints/checkpoint-8"):
        (ours,), (theirs,) = ([*(run / inside).glob("*.safetensors")] for run in runs)
        mine, expected = load_file(ours), load_file(theirs)
        assert mine.keys() == expected.keys()
        assert ours.name == theirs.name
        apart = max(float((mine[name] - expected[name]).abs().max()) for name in mine)
        assert apart < (5e-2 if topology else 2e-4)


def test_plain_transformers_loads_them(train: Train, env: Mapping[str, str]) -> None:
    runs = train("full", 8), train("mixtral", 8), train("lion", 4)
    folders = [run / inside for run in runs for inside in ("model", "checkpoints/checkpoint-4")]
    assert plain(LOAD, env, *folders) == ['["torch.float32", [], []]'] * len(folders)


def test_an_adapter_is_not_empty(train: Train, env: Mapping[str, str]) -> None:
    run = train("lora", 4)
    layers = record(run)["step0"]["lora_modules"]
    for inside in ("model", "checkpoints/checkpoint-4"):
        assert plain(ADAPTER, env, run / inside) == [str(layers)]


def test_the_best_checkpoint_is_what_is_left(train: Train) -> None:
    run = train("lion", 4)
    best = record(run)["best_step"]
    assert best in (4, 8)
    kept = load_file(run / f"checkpoints/checkpoint-{best}/model.safetensors")
    left = load_file(run / "model/model.safetensors")
    assert all(bool((kept[name] == left[name]).all()) for name in kept)


def test_the_other_stages_follow_on_the_host(train: Train, env: Mapping[str, str]) -> None:
    run = train("lora", 4)
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    found = json.loads((run / "evaluation.json").read_text())
    assert found["after"]["loss"] < found["before"]["loss"]
    assert found["merged"]["max_logit_difference"] < 1e-3
    assert plain(LOAD, env, run / "package") == ['["torch.float32", [], []]']
