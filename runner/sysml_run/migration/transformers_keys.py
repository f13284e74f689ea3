"""What is carried alike from every trainer whose keys are those of transformers' TrainingArguments."""

from __future__ import annotations

from . import optimizing, pacing
from .ledger import Ledger


def training(ledger: Ledger, optimizer: str, learning_rate: float, why: str) -> None:
    """Optimizer, learning rate and length, less what trainers choose differently; `why` says whose default it is."""
    optimizing.optimizer(ledger, "optim", optimizer)
    optimizing.numbers(ledger)
    ledger.make("optimizer.learning_rate", learning_rate, why)
    ledger.make("optimizer.weight_decay", 0.0, why)
    optimizing.scheduler(ledger, "lr_scheduler_type", "linear")
    optimizing.warmup(ledger, "lr_scheduler_type")
    pacing.length(ledger, "num_train_epochs", 3)
    ledger.make("training.micro_batch_size", 8, why)
