"""What rules say of the libraries is so: the pinned versions refuse, forget and keep what the rules claim."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.optimization import Adafactor
from transformers.trainer_utils import rotate_checkpoints, validate_quantization_for_training


def test_the_best_and_the_newest_checkpoint_are_never_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    rotate_checkpoints(str(tmp_path), 1, best_model_checkpoint=str(tmp_path / "checkpoint-2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]


def arguments(folder: Path, **more: object) -> TrainingArguments:
    evaluated = {"eval_strategy": "steps", "metric_for_best_model": "eval_loss", "greater_is_better": False}
    return TrainingArguments(str(folder), use_cpu=True, report_to=[], **evaluated, **more)


def test_a_best_loss_between_two_saves_has_no_files(tmp_path: Path) -> None:
    """Measured every 50 steps, saved every 100: the step of the best is remembered, and nothing was saved there."""
    args = arguments(tmp_path, eval_steps=50, save_steps=100, load_best_model_at_end=True)
    trainer = SimpleNamespace(args=args, state=TrainerState())
    for step, loss in ((50, 2.0), (100, 3.0)):
        trainer.state.global_step = step
        Trainer._determine_best_metric(trainer, {"eval_loss": loss}, None)
    assert trainer.state.best_global_step == 50


@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_acts_after_one_evaluation_more_than_its_patience(patience: int, tmp_path: Path) -> None:
    callback, state, control = EarlyStoppingCallback(patience), TrainerState(), TrainerControl()
    args = arguments(tmp_path, eval_steps=1)
    trainer = SimpleNamespace(args=args, state=state)
    stopped = []
    for _ in range(patience + 1):
        callback.on_evaluate(args, state, control, {"eval_loss": 1.0})
        Trainer._determine_best_metric(trainer, {"eval_loss": 1.0}, None)
        stopped.append(control.should_training_stop)
    assert stopped == [*[False] * patience, True]


def test_adafactor_keeps_as_many_numbers_for_a_vector_as_it_has() -> None:
    """ZeRO hands over vectors; a matrix of the same size takes a row and a column."""
    kept = {}
    for shape in ((40 * 50,), (40, 50)):
        weight = torch.nn.Parameter(torch.ones(shape))
        optimizer = Adafactor([weight], lr=1e-3, relative_step=False, scale_parameter=False)
        weight.grad = torch.ones(shape)
        optimizer.step()
        state = optimizer.state[weight].values()
        kept[len(shape)] = sum(value.numel() for value in state if isinstance(value, torch.Tensor) and value.ndim)
    assert kept == {1: 40 * 50, 2: 40 + 50}


def test_a_quantized_base_is_not_trained_without_adapters() -> None:
    quantizer = SimpleNamespace(is_trainable=True, is_qat_trainable=False)
    with pytest.raises(ValueError, match="attach trainable adapters"):
        validate_quantization_for_training(SimpleNamespace(is_quantized=True, hf_quantizer=quantizer))
