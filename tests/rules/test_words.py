"""What rules say where numbers are worked out, and where it depends on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

GATED = "model.base_model=meta-llama/Llama-3.1-8B"


def test_batches_are_multiplied_out(check) -> None:
    gpu = "hardware={accelerator: gpu, devices: 4, nodes: 2}"
    twice = ["training={num_epochs: 1, micro_batch_size: 2, gradient_accumulation_steps: 3}", gpu]
    (agrees,) = check(*twice, "training.effective_batch_size=48")
    worked_out = "micro_batch_size 2 x gradient_accumulation_steps 3 x devices 8 = 48"
    assert (agrees.message, agrees.hint) == (f"follows from the rest: {worked_out}", "keep one")
    (disagrees,) = check(*twice, "training.effective_batch_size=64")
    assert disagrees.message == f"is 64, but {worked_out}"
    assert disagrees.hint == "remove it for 48 rows a step, or gradient_accumulation_steps for 64"


def test_the_world_counts_in_the_batch(check) -> None:
    gpu = "hardware={accelerator: gpu, devices: 4, nodes: 2}"
    (problem,) = check(gpu, "training.effective_batch_size=12")
    assert problem.hint == "write 16"
    tpu = ["hardware={accelerator: tpu, topology: v3-8}", "prompt.padding=max_length"]
    (problem,) = check(*tpu, "training.effective_batch_size=12")
    assert problem.hint == "write 16"
    (problem,) = check(*tpu, "training.effective_batch_size=24", "training.gradient_accumulation_steps=3")
    assert problem.hint == "keep one"


@pytest.mark.parametrize(
    ("training", "most"),
    [
        ("{num_epochs: 1}", 99),
        ("{num_epochs: 2.5, micro_batch_size: 4}", 63),  # 25 a time through: 24 of four rows and one of three
        ("{num_epochs: 1, effective_batch_size: 33, micro_batch_size: 3}", 3),
        ("{num_epochs: 1, gradient_accumulation_steps: 9}", 11),
    ],
)
def test_rows_bound_the_steps(training: str, most: int, check) -> None:
    bounded = [f"training={training}", "datasets.0.max_rows=100"]
    assert check(*bounded, f"optimizer.warmup_steps={most - 1}") == []
    (problem,) = check(*bounded, f"optimizer.warmup_steps={most}")
    assert problem.message == f"the run has at most {most} steps, so the learning rate would never be reached"
    assert check(*bounded, f"optimizer.warmup_steps={most}", "datasets.0.weight=2") == []
    assert check(*bounded[:1], f"optimizer.warmup_steps={most}") == []


def test_rows_of_every_side_are_counted(check) -> None:
    both = "datasets=[{path: rows.jsonl, type: text, max_rows: 9}, {path: rows.jsonl, type: text, max_rows: 3}]"
    assert check(both, "split={validation: 5, test: 6}") == check(both, "split={validation: 0.5, test: 10}") == []
    (problem,) = check(both, "split={validation: 0.5, test: 11}")
    words = "max_rows lets 12 through at most, and to hold out validation 1 and test 11 leaves none to train on"
    assert (problem.pointer, problem.message) == ("split.test", words)
    assert check(both, "split={validation: 6, test: 6}", "datasets.1.use_as=train") == []
    assert check(both, "split={validation: 6, test: 6}", "datasets.1.max_rows=null") == []


def test_a_single_step_is_one(check) -> None:
    (problem,) = check("training={max_steps: 1}", "optimizer.warmup_steps=1")
    assert problem.message == "the run has 1 step, so the learning rate would never be reached"


def test_layers_there_are_are_named(check) -> None:
    (problem,) = check("model.base_model=tiny:mixtral", "lora.target_modules=[w1]")
    assert problem.message == "no linear layer of this mixtral is called w1"
    assert problem.hint == "it has q_proj, k_proj, v_proj, o_proj, gate"


def test_a_model_that_cannot_be_read_is_left_to_the_run(check, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    lora = "lora={dropout: 0.5, target_modules: [anything]}"
    assert check(f"model.base_model={tmp_path}", lora, "prompt.sequence_len=99999999") == []
    (problem,) = check(f"model.base_model={tmp_path}", "optimizer.learning_rate=1e-3")
    assert problem.pointer == "optimizer.learning_rate"
    (problem,) = check(f"model.base_model={tmp_path}/nowhere", lora, "prompt.sequence_len=99999999")
    assert problem.message == f"there is no model at {tmp_path}/nowhere"


def test_numbers_that_nobody_would_read_are_short(check) -> None:
    (problem,) = check("training={max_steps: 1e308}", "optimizer.warmup_steps=1.1e308")
    assert problem.message.startswith("the run has 1.0e308 steps")
    batch = "{num_epochs: 1, micro_batch_size: 1e308, gradient_accumulation_steps: 1e308, effective_batch_size: 8}"
    (problem,) = check(f"training={batch}")
    assert len(problem.message) < 160


def test_a_token_opens_gated_models(check, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = check(GATED)
    assert problem.message == "meta-llama/Llama-3.1-8B is gated, and no token is set"
    for name, value in {"HF_TOKEN": "hf_x", "HUGGINGFACE_TOKEN": "hf_x", "HF_HUB_OFFLINE": "true"}.items():
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert check(GATED) == []
    hub.mkdir()
    (hub / "token").write_text("")
    assert len(check(GATED)) == 1
    (hub / "token").write_text("hf_x")
    assert check(GATED) == []
    monkeypatch.setenv("HF_TOKEN_PATH", str(hub / "elsewhere"))
    assert len(check(GATED)) == 1


def test_a_token_in_the_home_folder_is_found(check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(check(GATED)) == 1
    (tmp_path / "cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "cache" / "huggingface" / "token").write_text("hf_x")
    assert check(GATED) == []


def test_a_gated_model_that_is_here_needs_no_token(check, hub: Path) -> None:
    (hub / "hub" / "models--meta-llama--Llama-3.1-8B" / "snapshots" / "main").mkdir(parents=True)
    assert check(GATED) == []
    assert [problem.pointer for problem in check(GATED, "model.revision=abc")] == ["model.base_model"]
    other = [
        "model.tokenizer=meta-llama/Llama-3.1-8B-Instruct",
        "distillation.teacher=meta-llama/Llama-3.3-70B-Instruct",
    ]
    assert sorted(problem.pointer for problem in check(GATED, *other)) == ["distillation.teacher", "model.tokenizer"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("learning_rate", "did you mean optimizer.learning_rate?"),
        ("optimizer.learning_rat", "did you mean optimizer.learning_rate?"),
        ("datasets.0.max_rowz", None),
        ('"."', "keys are written with their sections: optimizer.learning_rate"),
    ],
)
def test_keys_near_an_unknown_one_are_named(key: str, hint: str | None, check) -> None:
    (problem,) = check(f"search.space={{{key}: [1]}}")
    assert hint is None or problem.hint == hint
