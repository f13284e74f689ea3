"""What a finished run leaves, and that strangers can load it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

STAGES = ("prepare", "train", "evaluate", "merge", "package", "report")
LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
if len(sys.argv) > 2:
    from peft import AutoPeftModelForCausalLM as AutoModelForCausalLM
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
chat = [{"role": "user", "content": "the state is grave"}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
made = model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.pad_token_id)
assert made.shape[1] > inputs["input_ids"].shape[1]
print("generated")
"""


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_stage_left_a_record(finished: Path) -> None:
    assert {path.stem for path in (finished / "records").iterdir()} == set(STAGES)
    assert read(finished / "status.json")["state"] == "done"
    assert not list(finished.rglob(".partial-*"))


def test_metrics_have_a_line_for_each_step(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert all(set(line) >= {"loss", "learning_rate", "tokens_per_second", "grad_norm"} for line in steps)
    assert [line["step"] for line in lines if "eval_loss" in line] == [4, 8]
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_step_0_says_what_runs(finished: Path) -> None:
    facts = read(finished / "records/train.json")["step0"]
    assert facts["optimizer"] == "torch.optim.adamw.AdamW"
    assert facts["optimizer_parameters"] == facts["trainable_parameters"] > 0
    assert facts["lora_modules"] == 14
    assert facts["batch"] == [2, 2, 1]
    assert facts["precision"] == "no"
    assert facts["peak_learning_rate"] == pytest.approx(1e-2)
    assert facts["threads"] == 1


def test_loss_in_training_and_in_evaluation_is_the_same_number(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    last = [line["eval_loss"] for line in lines if "eval_loss" in line][-1]
    evaluation = read(finished / "evaluation.json")
    assert evaluation["after"]["loss"] == pytest.approx(last, rel=1e-5)
    assert evaluation["after"]["loss"] < evaluation["before"]["loss"]
    assert set(evaluation["after"]) == {
        "loss",
        "json_valid",
        "severity.accuracy",
        "severity.majority",
        "risk_score.mae",
    }
    assert evaluation["merged"]["max_logit_difference"] <= evaluation["merged"]["tolerance"]


def test_a_second_run_finds_the_rows_in_the_cache_and_one_word_changes_that(finished: Path, sysml_run: Any) -> None:
    again = sysml_run("tiny.yaml", "--runs", "runs-again", "--until", "prepare")
    assert "cache hit" in again.stdout
    template = "Be brief. {% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    first = sysml_run("tiny.yaml", "--runs", "r2", "--until", "prepare", "--set", f"prompt.template={template!r}")
    assert "cache hit" not in first.stdout
    other = template.replace("brief", "short")
    second = sysml_run("tiny.yaml", "--runs", "r3", "--until", "prepare", "--set", f"prompt.template={other!r}")
    assert "cache hit" not in second.stdout


@pytest.mark.parametrize(("name", "adapter"), [("model", True), ("merged", False), ("package", False)])
def test_plain_transformers_and_peft_load_it_offline(
    finished: Path, env: Mapping[str, str], tmp_path: Path, name: str, adapter: bool
) -> None:
    bare = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", LOAD, str(finished / name), *(["peft"] if adapter else [])]
    done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "generated" in done.stdout, done.stderr


def test_a_written_plan_trains_by_hand(project: Path, sysml_run: Any, env: Mapping[str, str]) -> None:
    folder = project / "by-hand"
    printed = sysml_run("plan", "tiny.yaml", "--write", str(folder)).stdout
    (line,) = [line for line in printed.splitlines() if "accelerate launch" in line]
    done = subprocess.run(line, shell=True, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "model/adapter_model.safetensors").is_file()


def test_what_is_not_as_written_stops_the_run(finished: Path) -> None:
    from sysml_run.errors import StageError
    from sysml_run.worker import step0

    with pytest.raises(StageError, match="optimizer is SGD, the recipe says AdamW"):
        step0._same("optimizer", "SGD", "AdamW")


def test_full_fine_tune_runs_to_the_end(project: Path, sysml_run: Any, env: Mapping[str, str], tmp_path: Path) -> None:
    sysml_run("tiny.yaml", "--runs", "runs-full", "--set", "lora=null", "--set", "model.dtype=bfloat16")
    (folder,) = (project / "runs-full/tiny").iterdir()
    assert not (folder / "merged").exists()
    facts = read(folder / "records/train.json")["step0"]
    assert facts["trainable_parameters"] == facts["total_parameters"]
    assert facts["trainable_dtypes"] == ["torch.float32"]
    assert read(folder / "package/config.json")["dtype"] == "bfloat16"
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder / "package")], env=env, capture_output=True, text=True
    )
    assert "generated" in done.stdout, done.stderr
