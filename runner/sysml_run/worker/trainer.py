"""TRL's SFTTrainer on rows that are tokens and labels already: cheaper loss, one validation loss, whole checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from trl import SFTTrainer

from sysml_run.rundir import PARTIAL, publish

from . import ranks
from .batches import SimilarLengths, answer_loss, tokens
from .measure import shared_loss
from .watch import Watch

STAGING = f"{PARTIAL}checkpoint"


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the order of rows which epoch begins.

    accelerate does too, but not where several processes go on in the middle of one: it has then wrapped it thrice.
    """

    def __init__(self, order: SimilarLengths) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.order.set_epoch(int(state.epoch or 0))


class Trainer(SFTTrainer):  # type: ignore[misc]
    """Counts the tokens it has trained on, padding excluded, in `tokens`; `lengths` are those of the training rows."""

    def __init__(self, *, lengths: Sequence[int], **rest: Any) -> None:
        self.lengths = lengths
        super().__init__(**rest)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        order = SimilarLengths(self.lengths, step, self.args.data_seed)
        self.add_callback(Epochs(order))
        return order

    tokens = 0
    scored = 0  # positions that logits were computed for
    batch: tuple[int, int] | None = None  # rows and tokens of each, while one is trained on
    devices = 1  # that share the micro batch of this process
    control: Any
    watch: Watch | None = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy of the labelled positions, summed and divided by their number in the whole optimizer step.

        TRL scores every position on a processor; here the prompt's are left out. A mixture of experts adds its
        router loss, a mean over the micro batch, as TRL does. Gradients of several processes are averaged, so that
        each takes its loss as many times as there are processes.
        """
        self.batch = tuple(inputs["input_ids"].shape)
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        losses, output = self.losses(model, inputs)
        self.scored += output.logits.shape[0] * output.logits.shape[1]
        self.tokens += tokens(inputs)
        loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * output.aux_loss / self.current_gradient_accumulation_steps
        return (loss, output) if return_outputs else loss

    def losses(self, model: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """What is learned from: the loss of every label, (rows, kept), 0 where there is none, and the output."""
        return answer_loss(model, inputs)

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        loss = super().training_step(model, inputs, *rest)
        if self.watch is not None:
            self.watch.saw(loss, inputs)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *rest: Any, **named: Any) -> None:
        """Whether the step was sound comes before what is logged and saved of it; an epoch's end has no new step."""
        if self.watch is not None and self.watch.batches:
            self.watch.settle(self.state.global_step, grad_norm)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *rest, **named)

    def _run_epoch(self, **named: Any) -> None:
        """No step of one that early stopping had ended before the checkpoint that training goes on from."""
        early = [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
        if any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in early):
            self.control.should_training_stop = True
            return
        super()._run_epoch(**named)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean loss of a labelled token over the validation rows: the same number as the evaluate stage's."""
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        model.eval()
        self.batch = None
        with self.compute_loss_context_manager():
            found = self.validation_loss(model)
        model.train()
        metrics = {f"{metric_key_prefix}_loss": found}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def validation_loss(self, model: Any) -> float:
        """Of `model`, which every process runs."""
        return shared_loss(model, self.eval_dataset, self.data_collator, self.args.device)

    def logged(self) -> dict[str, float]:
        """What a line of metrics is to hold of this kind of trainer beside the rest; every process must ask."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What step 0 is to know of this kind of trainer beside the rest."""
        return {}

    def record(self) -> dict[str, Any]:
        """What the train record is to hold of this kind of trainer beside the rest; every process must ask."""
        import torch

        found: dict[str, Any] = {"scored_positions": int(ranks.total(self.scored)[0])}
        if torch.cuda.is_available():
            found["peak_card_bytes"] = torch.cuda.max_memory_allocated()  # of the first process's card
        return found

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The package stage writes the card; checkpoints carry none."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Let transformers write into a staging folder, then give the checkpoint its name in one rename.

        Every process writes its share; the first one clears up before and names it after, while the others wait.
        """
        final, step = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        staging, limit = final / STAGING, self.args.save_total_limit
        if ranks.first():
            shutil.rmtree(staging, ignore_errors=True)
        ranks.meet()
        self._staging, self.args.save_total_limit = staging, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging, self.args.save_total_limit = None, limit
        best = self.state.best_model_checkpoint
        if best and Path(best).parent == staging:
            self.state.best_model_checkpoint = str(final / Path(best).name)
        ranks.meet()
        if ranks.first():
            self.state.save_to_json(str(staging / step / "trainer_state.json"))
            publish(staging / step, final / step)
            shutil.rmtree(staging)
            kept = self.state.best_model_checkpoint
            rotate_checkpoints(str(final), limit, best_model_checkpoint=kept, use_mtime=False)
        ranks.meet()

    def create_optimizer(self, *arguments: Any) -> Any:
        """Keeps in `held` what the optimizer is given: DeepSpeed replaces it by one long vector later on."""
        built = super().create_optimizer(*arguments)
        self.held = [group | {"params": list(group["params"])} for group in self.optimizer.param_groups]
        return built

    optimizer: Any
    held: list[dict[str, Any]] = []  # noqa: RUF012
    _staging: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)
