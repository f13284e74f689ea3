"""The trainer on XLA devices: sharded in place, one shape a batch, and checkpoints that load anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sysml_run.recipe import Lion, Recipe
from sysml_run.worker import ranks
from sysml_run.worker import trainer as plain

from . import compilations, device, evaluation, experts, loss, saving, sharding


def lion(recipe: Recipe) -> tuple[Any, dict[str, Any]] | None:
    """Lion for XLA, where the recipe asks for it: transformers would take bitsandbytes', which is CUDA's."""
    if not isinstance(recipe.optimizer, Lion):
        return None
    from lion_pytorch import Lion as OnAny

    return OnAny, {"lr": recipe.optimizer.learning_rate, "betas": tuple(recipe.optimizer.betas)}


class Draws(TrainerCallback):  # type: ignore[misc]
    """Gives each step random numbers of its own, by its number.

    XLA's generator moves on whenever a program is run, and a run that goes on from a checkpoint runs other ones before
    its first step: with the state that the checkpoint holds dropout would differ.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        import torch_xla.core.xla_model as xm

        xm.set_rng_state((self.seed * 1_000_003 + state.global_step) % 2**31)


class Trainer(plain.Trainer):
    """One process feeds all `devices`: `per_device_train_batch_size` is the rows of a micro batch on all of them.

    Call `place` before training. `best` is the checkpoint to keep instead of the last weights, where there is one.
    """

    def __init__(self, *, recipe: Recipe, **rest: Any) -> None:
        self.recipe, self.devices = recipe, device.slice_of(recipe).devices
        self.best: Path | None = None
        self.counted: Any = None
        self.experts: str | None = None
        super().__init__(optimizer_cls_and_kwargs=lion(recipe), **rest)
        self.compilations = compilations.Compilations()
        self.add_callback(self.compilations)
        self.add_callback(Draws(recipe.seed))

    def place(self, checkpoint: Path | None) -> None:
        """Load the weights of a checkpoint, if any, and spread the model over the devices."""
        import torch

        device.check(self.recipe, len(self.train_dataset))
        if checkpoint is not None:
            super()._load_from_checkpoint(str(checkpoint))
        self._choose_experts()
        checkpointed = self.recipe.training.gradient_checkpointing
        if checkpointed and self.recipe.lora is not None:
            self.model.enable_input_require_grads()  # else the first layer, whose input needs no gradient, is left out
        sharding.shard(self.model, checkpointed=checkpointed)
        self.counted = torch.zeros((), dtype=torch.int64, device="xla")

    @property
    def tokens(self) -> int:  # type: ignore[override]  # nobody sets it here
        """Those of all hosts, on the first, which speaks for all; read back when a step is logged."""
        found = 0 if self.counted is None else int(self.counted)  # on every host: each must run what it waits for
        return found if ranks.first() else 0

    def facts(self) -> dict[str, Any]:
        """For step 0: what trains, in what arithmetic, and how the model is divided."""
        parameters = [*self.model.parameters()]
        return {
            "precision": "bf16" if self._bf16() else "no",
            "ran_on": device.kind(),
            "devices": device.count(),
            "numbers": sharding.held(parameters),
            "experts": self.experts,
        }

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As the plain trainer's, with nothing read back in a step."""
        self.batch = tuple(inputs["input_ids"].shape)
        self.compilations.saw(inputs)
        if self.aux_loss_enabled:
            inputs["output_router_logits"] = True
        self.counted = self.counted + loss.tokens(inputs)
        losses, output = loss.answer_loss(model, inputs)
        total = losses.sum() / num_items_in_batch
        if self.aux_loss_enabled:
            total = total + self.router_aux_loss_coef * output.aux_loss / self.current_gradient_accumulation_steps
        return (total, output) if return_outputs else total

    def validation_loss(self, model: Any) -> float:
        with self.compilations.during("evaluation"):
            return evaluation.loss(self)

    def record(self) -> dict[str, Any]:
        return {"xla": {"ran_on": device.kind(), "devices": device.count(), **self.compilations.record()}}

    def autocast_smart_context_manager(self, *_: Any, **__: Any) -> Any:
        """bf16 in products and fp32 in weights; accelerate's own switch would turn the weights to bf16 on a TPU."""
        import torch

        return torch.autocast("xla", dtype=torch.bfloat16, enabled=self._bf16())

    def get_train_dataloader(self) -> Any:
        return self._divided(super().get_train_dataloader())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        with self.compilations.during("saving weights"):
            saving.save_model(self, Path(output_dir or self.args.output_dir))

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Going on within an epoch, accelerate feeds from a loader that knows nothing of the division of rows."""
        import torch_xla.distributed.spmd as xs

        for tensor in inputs.values():
            if not sharding.marked(tensor):
                xs.mark_sharding(tensor, device.mesh(), (device.AXIS, None))
        return inputs

    def publish(self, folder: Path) -> None:
        """Write `model/`: what this run has made."""
        saving.publish(self, folder)

    def _choose_experts(self) -> None:
        rows = self.args.per_device_train_batch_size // self.devices
        base = self.model.get_base_model() if self.recipe.lora else self.model
        self.experts = experts.choose(rows * self.recipe.prompt.sequence_len, base.config)
        if self.experts is not None:
            experts.register()
            base.set_experts_implementation(self.experts)

    def _bf16(self) -> bool:
        return bool(self.recipe.hardware.precision == "bf16")

    def _divided(self, loader: Any) -> Any:
        import torch_xla.distributed.spmd as xs

        loader._parallel_loader_kwargs["input_sharding"] = xs.ShardingSpec(device.mesh(), (device.AXIS, None))
        return loader

    def _move_model_to_device(self, *_: Any) -> None:
        """`place` does, layer by layer."""

    def _load_from_checkpoint(self, *_: Any, **__: Any) -> None:
        """`place` has."""

    def _load_best_model(self) -> None:
        """Nothing is loaded into the devices for it: the checkpoint's files are what is kept."""
        self.best = Path(self.state.best_model_checkpoint)

    def _save_rng_state(self, output_dir: str) -> None:
        """It is the same on every host."""
        if ranks.first():
            super()._save_rng_state(output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        with self.compilations.during("saving the optimizer"):
            saving.save_optimizer(self, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            saving.load_optimizer(self, Path(checkpoint))
