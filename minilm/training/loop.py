"""The training loop: read texts in batches, measure the loss, follow its gradient, and keep the best model seen.

    for each epoch, for each batch:
        loss      = objective(model(batch), labels)
        gradient  = d loss / d weights                  (backpropagation)
        gradient *= min(1, clip / ||gradient||)         (clipping, Pascanu et al. 2013)
        weights   = AdamW(weights, gradient, rate(step))
    now and then: measure on validation texts; remember the weights that did best; stop when they no longer improve.

Nothing inside a step waits for a GPU: losses are added up there, and read when something is shown.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from minilm.config import TrainSection
from minilm.devices import Execution
from minilm.errors import UserError
from minilm.evaluation.metrics import is_better
from minilm.models.layers import Batch
from minilm.training.objectives import Objective
from minilm.training.optimizer import learning_rate, make_optimizer
from minilm.training.state import Checkpoints, Progress, copy_of, put_back, trained_parameters


class Interrupted(Exception):
    """The run was told to stop by a signal; its state is kept."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.folder = number, folder


@dataclass(frozen=True)
class Task:
    """What to train on: batches of an epoch, and what they hold."""

    batches: Callable[[int], Sequence[np.ndarray]]  # epoch -> the row numbers of each batch
    collate: Callable[[np.ndarray], Batch]  # row numbers -> the batch, on the CPU
    objective: Objective
    evaluate: Callable[[], dict[str, dict[str, Any]]]  # {"train": metrics of a sample, "validation": metrics}
    record: Callable[[list[dict[str, Any]]], None]  # keeps all evaluations so far where others can read them


def train(
    model: nn.Module, task: Task, settings: TrainSection, execution: Execution, checkpoints: Checkpoints
) -> Progress:
    """Train until the last epoch, the time limit, or no more improvement; leave the best weights in the model.

    Goes on from the last checkpoint where there is one, and ends bit for bit where an uninterrupted run ends (on a CPU).

    Raises:
        UserError: the loss is no longer finite, or the checkpoint is damaged.
        Interrupted: SIGINT or SIGTERM came; the state is kept.
    """
    return _Loop(model, task, settings, execution, checkpoints).run()


class _Loop:
    """The loop's parts share much: the model, the optimizer, the progress, the best weights."""

    def __init__(
        self, model: nn.Module, task: Task, settings: TrainSection, execution: Execution, checkpoints: Checkpoints
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.execution, self.checkpoints = execution, checkpoints
        self.optimizer = make_optimizer(model, settings, execution)
        self.scaler = torch.amp.GradScaler(execution.device.type, enabled=execution.scales_loss)
        restored = checkpoints.restore(model, self.optimizer, execution.device)
        self.progress, self.best = restored or (Progress(), copy_of(trained_parameters(model)))
        self.steps_per_epoch = math.ceil(len(task.batches(0)) / settings.accumulate)
        self.started = time.monotonic() - self.progress.seconds
        self.saved = time.monotonic()
        self.losses = torch.zeros((), dtype=torch.float64 if execution.device.type != "mps" else torch.float32).to(
            execution.device
        )
        self.losses += self.progress.loss_sum
        self.gradient_norm = torch.zeros((), device=execution.device)
        self.signal = 0

    def run(self) -> Progress:
        progress, settings = self.progress, self.settings
        total = settings.epochs * self.steps_per_epoch
        with self._signals(), _bar(total, progress.step) as bar:
            while progress.epoch < settings.epochs and not progress.stopped:
                self._epoch(bar)
            if not progress.stopped:
                progress.stopped = "finished"
                self._keep()
        put_back(self.model, self.best, "the best weights")
        return progress

    def _epoch(self, bar: tqdm[Any]) -> None:
        """The rest of the epoch that the progress is in."""
        progress, settings = self.progress, self.settings
        batches = self.task.batches(progress.epoch)
        while progress.batch < len(batches):
            group = batches[progress.batch : progress.batch + settings.accumulate]
            self._step(group)
            progress.batch += len(group)
            progress.step += 1
            self._show(bar)
            epoch_over = progress.batch >= len(batches)
            if epoch_over:
                progress.epoch, progress.batch = progress.epoch + 1, 0
            every = settings.evaluate_every
            out_of_time = 0 < settings.max_minutes * 60 <= self._seconds()
            if (progress.step % every == 0 if every else epoch_over) or out_of_time:
                self._evaluate(bar, "max_minutes" if out_of_time else "")
            if self.signal:
                self._keep()
                raise Interrupted(self.signal, self.checkpoints.folder.parent)
            if epoch_over or progress.stopped:
                return

    def _step(self, group: Sequence[np.ndarray]) -> None:
        """One step of the optimizer, on the gradient of the mean loss over all rows of the group's batches."""
        self.model.train()
        rate = learning_rate(self.progress.step, settings=self.settings, steps_per_epoch=self.steps_per_epoch)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        rows = sum(len(batch_rows) for batch_rows in group)
        for batch_rows in group:
            batch = self.task.collate(batch_rows)
            self.progress.tokens += batch.ids.numel() if batch.mask is None else int(batch.mask.sum())
            batch = batch.to(self.execution.device)
            with self.execution.autocast():
                loss = self.task.objective(self.model(batch), batch.labels)
            self.scaler.scale(loss * (len(batch_rows) / rows)).backward()
            self.losses += loss.detach() * len(batch_rows)
        self.progress.loss_rows += rows
        self.scaler.unscale_(self.optimizer)
        trainable = [p for p in self.model.parameters() if p.grad is not None]
        self.gradient_norm = nn.utils.clip_grad_norm_(trainable, self.settings.clip or math.inf)
        if self.execution.device.type == "cpu":
            self._check_finite()  # before the weights are touched; elsewhere it would wait for the device
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    def _check_finite(self) -> None:
        """Stop where loss or gradient have become infinite or not a number; the last checkpoint is from before."""
        scaled = self.execution.scales_loss  # then the scaler skips a step whose gradients overflowed
        norm = float(self.gradient_norm)
        if math.isfinite(float(self.losses)) and (scaled or math.isfinite(norm)):
            return
        step = self.progress.step
        rate = learning_rate(step, settings=self.settings, steps_per_epoch=self.steps_per_epoch)
        kept = self.checkpoints.last()
        raise UserError(
            f"the loss is no longer finite at step {step + 1} (learning rate {rate:.3g}, gradient norm {norm:.3g}); "
            f"lower train.lr, or train longer at train.warmup. "
            + (f"The last good state is kept in {kept}" if kept else "No step before it was worth keeping")
        )

    def _evaluate(self, bar: tqdm[Any], stop: str) -> None:
        """Measure, remember the best, decide whether to go on, and keep the state."""
        progress, settings = self.progress, self.settings
        self._check_finite()
        paused = time.monotonic()
        metrics = self.task.evaluate()
        self.started += time.monotonic() - paused  # evaluations are not training time
        entry = self._entry(metrics)
        value = metrics["validation"][settings.best]
        first = progress.best_step < 0
        if first or is_better(settings.best, value, progress.best_value, 0.0):
            counts = first or is_better(settings.best, value, progress.best_value, settings.threshold)
            progress.best_step, progress.best_value = progress.step, value
            self.best = copy_of(trained_parameters(self.model))
            progress.stale = 0 if counts else progress.stale + 1
        else:
            progress.stale += 1
        progress.history.append(entry)
        progress.loss_rows = 0
        self.losses.zero_()
        self.task.record(progress.history)
        tqdm.write(_line(entry, settings, best=progress.best_step == progress.step))
        sys.stdout.flush()
        if settings.patience and progress.stale >= settings.patience:
            stop = stop or "early stopping"
        progress.stopped = stop
        if stop or time.monotonic() - self.saved >= settings.checkpoint_minutes * 60:
            self._keep()

    def _entry(self, metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What one evaluation leaves in ``metrics.jsonl``."""
        progress = self.progress
        seconds = self._seconds()
        return {
            "step": progress.step,
            "epoch": round(progress.step / self.steps_per_epoch, 4),
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": float(self.losses) / max(1, progress.loss_rows),
            "grad_norm": float(self.gradient_norm),
            "tokens_per_second": progress.tokens / seconds if seconds else 0.0,
            "seconds": seconds,
            **metrics,
        }

    def _seconds(self) -> float:
        """Seconds of training so far, over all parts of the run, without evaluations."""
        self.execution.synchronize()
        return time.monotonic() - self.started

    def _keep(self) -> None:
        """Write a checkpoint."""
        self.progress.seconds = self._seconds()
        self.progress.loss_sum = float(self.losses)
        self.checkpoints.save(self.model, self.optimizer, self.progress, self.best, self.execution.device)
        self.saved = time.monotonic()

    def _show(self, bar: tqdm[Any]) -> None:
        """Move the bar; the numbers beside it are read only when it is drawn anew."""
        if bar.update():
            progress = self.progress
            rate = self.optimizer.param_groups[0]["lr"]
            loss = float(self.losses) / max(1, progress.loss_rows)
            speed = progress.tokens / max(1e-9, self._seconds())
            bar.set_postfix_str(f"loss {loss:.3f}, rate {rate:.1e}, {speed:,.0f} tokens/s", refresh=False)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the step under way, not the process; a second one ends that too."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.signal:
                raise KeyboardInterrupt
            self.signal = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bar(total: int, done: int) -> tqdm[Any]:
    """A progress bar on a terminal; nothing where the output is piped to a file."""
    return tqdm(total=total, initial=done, unit="step", disable=None, dynamic_ncols=True, mininterval=0.5, leave=False)


def _line(entry: dict[str, Any], settings: TrainSection, *, best: bool) -> str:
    """One evaluation in one line."""
    validation = entry["validation"]
    chosen = "" if settings.best == "loss" else f"  {settings.best.replace('_', ' ')} {validation[settings.best]:.4f}"
    return (
        f"epoch {entry['epoch']:>6g}/{settings.epochs}  step {entry['step']:>6}  loss {entry['train_loss']:.4f}  "
        f"validation: loss {validation['loss']:.4f}{chosen}  rate {entry['lr']:.1e}  "
        f"{entry['tokens_per_second']:>7,.0f} tokens/s{'  best' if best else ''}"
    )


