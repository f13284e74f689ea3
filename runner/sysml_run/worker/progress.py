"""What a running training shows and leaves: a progress bar or lines, metrics.jsonl, and a checkpoint when stopped."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from sysml_run.errors import StageError
from sysml_run.rundir import RunDir, write_text

from . import ranks


class Progress(TrainerCallback):  # type: ignore[misc]
    """Follows one trainer; `begin` is called with it once optimizer and schedule are built.

    Of several processes the first writes and speaks; the others only add their tokens.
    """

    def __init__(self, rundir: RunDir, begin: Callable[[], None]) -> None:
        self.rundir, self.begin = rundir, begin
        self.trainer: Any = None
        self.bar: Any = None
        self.seen: tuple[float, int] = (0.0, 0)
        self.started, self.first = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if ranks.first():
            keep_until(self.rundir, state.global_step)
        self.begin()
        self.started, self.first = time.monotonic(), state.global_step
        self.seen = (self.started, 0)
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="train",
            unit="step",
            file=sys.stdout,
            disable=None if ranks.first() else True,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):  # where it is not read back in every step
                message = f"step {state.global_step}: the loss is no number"
                raise StageError(message, "lower optimizer.learning_rate, and start anew")
            self._training(state, logs)
        elif "eval_loss" in logs:
            self._write(state, {"eval_loss": logs["eval_loss"]})
            self._say(f"step {state.global_step}: validation loss {logs['eval_loss']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()

    def _training(self, state: Any, logs: dict[str, Any]) -> None:
        now, tokens = time.monotonic(), int(ranks.total(self.trainer.tokens)[0])
        speed = (tokens - self.seen[1]) / max(1e-9, now - self.seen[0])
        self.seen = (now, tokens)
        shown = {name: logs.get(name) for name in ("loss", "learning_rate", "grad_norm")}
        if self.trainer.is_deepspeed_enabled and not shown["grad_norm"]:
            shown["grad_norm"] = None  # DeepSpeed clips in stage 0 too, but reports 0 there
        self._write(state, {**shown, **self.trainer.logged(), "tokens_per_second": round(speed, 1)})
        words = {"loss": f"{logs['loss']:.3f}", "lr": f"{logs['learning_rate']:.1e}", "tok/s": f"{speed:.0f}"}
        self.bar.set_postfix(words)
        if self.bar.disable:
            done = max(1, state.global_step - self.first)
            left = (now - self.started) / done * (state.max_steps - state.global_step)
            facts = "  ".join(f"{name} {value}" for name, value in words.items())
            self._say(f"step {state.global_step}/{state.max_steps}  {facts}  {left:.0f} s left")

    def _say(self, text: str) -> None:
        if not ranks.first():
            return
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text, file=sys.stdout)

    def _write(self, state: Any, facts: dict[str, Any]) -> None:
        if not ranks.first():
            return
        line = {"step": state.global_step, "epoch": round(state.epoch or 0, 4), **facts}
        with self.rundir.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Stopping(TrainerCallback):  # type: ignore[misc]
    """On the first SIGINT or SIGTERM finish the step, save a checkpoint and stop; a second SIGINT stops at once.

    Several SIGTERM are one wish: a scheduler sends it to every process of a group, and launchers pass on what they
    are sent. Processes that train together stop after the same step, whichever of them were asked, and leave a second
    SIGINT to their launcher, which ends them.
    """

    def __init__(self) -> None:
        self.asked = self.interrupted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            ranks.untied()
        elif self.interrupted and not ranks.launched():
            raise KeyboardInterrupt
        if not self.asked and ranks.first():
            print("\nstopping: saving a checkpoint after this step (Ctrl-C once more: at once)", flush=True)
        self.asked, self.interrupted = True, self.interrupted or number == signal.SIGINT

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.asked = ranks.any_of(self.asked)
        if self.asked:
            control.should_save = control.should_training_stop = True
        return control


def keep_until(rundir: RunDir, step: int) -> None:
    """Drop lines of metrics.jsonl after `step`: those steps are about to be made again."""
    if rundir.metrics.is_file():
        lines = rundir.metrics.read_text(encoding="utf-8").splitlines()
        whole = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_text(rundir.metrics, "".join(f"{line}\n" for line in whole))
