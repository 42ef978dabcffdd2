"""The training loop: read texts in batches, measure the loss, step against its gradient, and keep the best model.

    for each epoch, for each group of ``accumulate`` batches:              one step of the optimizer
        n         = sum of objective.denominator(labels) over the group    texts, weighted texts or predicted tokens
        loss      = sum of objective.sum(model(batch), labels) over the group / n
        gradient  = d loss / d weights                                     backpropagation
        gradient *= min(1, clip / ||gradient||)                            clipping (Pascanu et al. 2013), if clip > 0
        weights   = AdamW(weights, gradient, rate(step))
    after every epoch, or every ``evaluate_every`` steps:
        evaluate on the validation texts; keep the best weights; stop if there is no more improvement

Dividing by the n of the whole group, not batch by batch, makes accumulation equal to one large batch, even if its
batches differ in size.

In float16 small gradients become zero. So the loss is multiplied by a large scale and the gradient divided by it before
clipping; a step whose gradient overflows is skipped, and the scale lowered. In other precisions nothing is scaled.

Reading a number from a GPU makes the CPU wait for the GPU. So losses are added up on the device, and read only when
they are shown.

Several processes share the work of each step (``minilm.training.distributed``). With one process, what is imported from
there and from ``minilm.world`` does nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from minilm.config import TrainSection
from minilm.devices import Runtime
from minilm.errors import UserError
from minilm.evaluation.metrics import Metrics, is_better
from minilm.evaluation.predictor import Forward
from minilm.finetuning.freezing import training_mode
from minilm.models.batch import Batch
from minilm.reporting.results import Evaluation
from minilm.training.console import Interrupted, progress_bar, recorded_signals, show_evaluation
from minilm.training.distributed import draw_for_itself, part_of_step, sum_gradients
from minilm.training.objectives import LanguageObjective, Objective
from minilm.training.optimizer import learning_rate, make_optimizer, steps_per_epoch_of
from minilm.training.state import Checkpoints, Progress
from minilm.world import from_first, largest, whole


@dataclass(frozen=True)
class Task:
    """The training task: objective, batches and evaluation. ``evaluate`` and ``forward`` use the model of ``train``."""

    batches: Callable[[int], Sequence[np.ndarray]]  # epoch -> its batches of row numbers (B,); their number is constant
    collate: Callable[[np.ndarray, int], Batch]  # row numbers and epoch -> the batch, on the CPU
    objective: Objective | LanguageObjective
    evaluate: Callable[[], dict[str, Metrics]]  # the model's metrics on "validation", and optionally on "train"
    record: Callable[[list[Evaluation]], None]  # writes all evaluations so far to a file
    forward: Forward | None = None  # (batch, row numbers) -> scores, from cached outputs; None: model(batch)
    seconds: float = 0.0  # time to fill the cache, which counts as training time


def train(
    model: nn.Module, task: Task, settings: TrainSection, runtime: Runtime, checkpoints: Checkpoints
) -> Progress:
    """Train until the last epoch, the time limit, or ``patience`` evaluations without improvement. At the end the model
    has the best weights.

    Resumes from the last checkpoint if there is one. On a CPU, the result is bit for bit that of an uninterrupted run.
    Checkpoints are written after evaluations, at most every ``checkpoint_minutes``, and after a signal; on a CPU also
    before a step whose loss or gradient is not finite.

    Raises:
        UserError: the loss is no longer finite, or the checkpoint is damaged.
        Interrupted: SIGINT or SIGTERM was received; a checkpoint was written.
    """
    return _Loop(model, task, settings, runtime, checkpoints).run()


class _Loop:
    """The steps of the training loop, which share the model, the optimizer and the progress."""

    def __init__(
        self, model: nn.Module, task: Task, settings: TrainSection, runtime: Runtime, checkpoints: Checkpoints
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.device, self.runtime, self.checkpoints = runtime.device, runtime, checkpoints
        self.optimizer = make_optimizer(model, settings)
        draw_for_itself()  # other dropout in each process; a checkpoint overwrites it
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=runtime.scales_loss)
        # Restores weights, optimizer state and random state from the last checkpoint, if there is one.
        self.progress = checkpoints.restore(model, self.optimizer, self.device) or Progress()
        if self.scaler.is_enabled() and self.progress.loss_scaling:
            self.scaler.load_state_dict(self.progress.loss_scaling)
        self.steps_per_epoch = steps_per_epoch_of(len(task.batches(0)), settings)
        self.steps = settings.epochs * self.steps_per_epoch
        # float64, so that a sum of thousands of losses stays precise; MPS does not support it.
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        self.loss_sum = torch.tensor(self.progress.loss_sum, dtype=precise, device=self.device)
        self.gradient_norm = torch.zeros((), device=self.device)
        # The current time minus clock_start is the training time. An evaluation adds its duration to clock_start.
        self.clock_start = time.monotonic() - self.progress.seconds - task.seconds
        self.last_checkpoint_at = time.monotonic()

    def run(self) -> Progress:
        progress = self.progress
        training_mode(self.model)  # wholly frozen modules run without dropout; evaluations restore the modes
        with recorded_signals() as signals, progress_bar(self.steps, progress.step) as bar:
            for epoch, batches in self._steps_left():
                self._step(epoch, batches)
                if bar.update():  # true if redrawn, at most twice a second, as reading the loss waits for the GPU
                    bar.set_postfix_str(self._numbers(), refresh=False)
                stop = self._reason_to_stop()
                if stop or self._evaluation_due():
                    self._evaluate(stop)
                if signal := largest(signals[0] if signals else 0):  # Ctrl-C or SIGTERM was received during the step
                    self._check_finite(float(self.loss_sum))
                    self._save_checkpoint()
                    raise Interrupted(signal, self.checkpoints.folder.parent)
                if progress.stopped:
                    break
        self.checkpoints.put_best_back(self.model)
        self.model.eval()
        return progress

    def _steps_left(self) -> Iterator[tuple[int, Sequence[np.ndarray]]]:
        """Yield the epoch and the batches of each remaining step."""
        if self.progress.stopped:
            return
        first_epoch, steps_done = divmod(self.progress.step, self.steps_per_epoch)
        size = self.settings.accumulate
        for epoch in range(first_epoch, self.settings.epochs):
            batches = self.task.batches(epoch)
            for start in range(steps_done * size, len(batches), size):
                yield epoch, batches[start : start + size]
            steps_done = 0

    def _step(self, epoch: int, batches: Sequence[np.ndarray]) -> None:
        """One optimizer step, with the gradient of sum / denominator over all of these batches together."""
        objective, progress = self.task.objective, self.progress
        for group in self.optimizer.param_groups:  # the rate depends only on the step, so no state is saved
            group["lr"] = self._rate(progress.step)
        # Load all batches first: the first backward pass needs the denominator of the whole step.
        loaded = [self.task.collate(rows, epoch) for rows in batches]
        denominator = sum(objective.denominator(labels_of(batch)) for batch in loaded)
        loss = torch.zeros((), device=self.device)
        # weight: 1, or 0 for a row that only keeps processes in step
        for rows, on_cpu, weight in part_of_step(batches, loaded):
            batch = on_cpu.to(self.device)
            with self.runtime.autocast():
                # (B, C); for a language model (N, V), N predicted tokens
                scores = self.model(batch) if self.task.forward is None else self.task.forward(batch, rows)
                part = objective.sum(scores, labels_of(batch)) / denominator * weight  # ()
            self.scaler.scale(part).backward()  # adds to the gradients of the batches before
            loss += part.detach()
        sum_gradients(self.model, loss)  # over all processes
        # torch's annotation is narrower than what it needs: param_groups and step().
        self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]
        # If clip is 0, infinity gives the norm without clipping.
        self.gradient_norm = whole(  # sharded: each process has a part
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        )
        if self.device.type == "cpu":  # on a GPU this would wait; _evaluate finds a NaN in loss_sum
            self._check_finite(float(loss), before_step=True)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]
        self.scaler.update()
        self.optimizer.zero_grad()

        self.loss_sum += loss * denominator  # a sum, so that the mean over many steps is exact
        progress.loss_denominator += denominator
        progress.tokens += sum(tokens_in(batch) for batch in loaded)
        progress.step += 1

    def _rate(self, step: int) -> float:
        return learning_rate(step, settings=self.settings, steps_per_epoch=self.steps_per_epoch)

    def _evaluation_due(self) -> bool:
        """Whether an evaluation is due: every ``evaluate_every`` steps, or after every epoch."""
        return self.progress.step % (self.settings.evaluate_every or self.steps_per_epoch) == 0

    def _reason_to_stop(self) -> str:
        if self.progress.step == self.steps:
            return "finished"
        limit = 60 * self.settings.max_minutes
        return "max_minutes" if limit and from_first(lambda: limit <= self._seconds()) else ""

    def _evaluate(self, stop: str) -> None:
        """Evaluate, keep the best weights, decide whether to stop, record the evaluation, and write a checkpoint if
        due.
        """
        progress, settings = self.progress, self.settings
        self._check_finite(float(self.loss_sum))
        seconds = self._seconds()
        found = self.task.evaluate()
        metrics = from_first(lambda: found)  # so that all decide alike
        self._check_finite(metrics["validation"].loss)
        self._judge(metrics["validation"])
        self.clock_start = time.monotonic() - seconds
        early = 0 < settings.patience <= progress.bad_evaluations
        progress.stopped = stop or ("early stopping" if early else "")

        entry = self._entry(metrics, seconds)
        progress.history.append(entry)
        progress.loss_denominator = 0.0  # a new mean of the training loss begins
        self.loss_sum.zero_()
        self.task.record(progress.history)
        show_evaluation(entry, settings, best=progress.best_step == progress.step)
        if progress.stopped or from_first(self._checkpoint_due):
            self._save_checkpoint()

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self.last_checkpoint_at >= 60 * self.settings.checkpoint_minutes

    def _judge(self, metrics: Metrics) -> None:
        """Keep the weights if they are the best so far, and count the evaluations without progress.

        Weights with any gain are kept, but only a gain above ``min_delta`` counts as progress. With few validation
        texts, metrics are often exactly equal; then the lower loss decides.
        """
        progress, settings = self.progress, self.settings
        value, loss = metrics[settings.best], metrics["loss"]
        breaks_tie = value == progress.best_value and progress.best_loss is not None and loss < progress.best_loss
        is_best = breaks_tie or is_better(settings.best, value, progress.best_value)
        is_progress = is_better(settings.best, value, progress.best_value, settings.min_delta)
        is_progress = is_progress or (breaks_tie and not settings.min_delta)  # a tie is a gain of 0
        progress.bad_evaluations = 0 if is_progress else progress.bad_evaluations + 1
        if is_best:
            progress.best_step, progress.best_value, progress.best_loss = progress.step, value, loss
            self.checkpoints.keep_best(self.model)

    def _entry(self, metrics: dict[str, Metrics], seconds: float) -> Evaluation:
        """The entry of one evaluation in ``metrics.jsonl``."""
        progress, norm = self.progress, float(self.gradient_norm)
        return Evaluation(
            step=progress.step,
            epoch=progress.step / self.steps_per_epoch,
            lr=self.optimizer.param_groups[0]["lr"],
            train_loss=self._mean_loss(),
            grad_norm=norm if math.isfinite(norm) else None,  # None: float16 overflow, the step was skipped
            tokens_per_second=progress.tokens / seconds,
            seconds=seconds,
            **metrics,
        )

    def _mean_loss(self) -> float:
        """The mean training loss since the last evaluation."""
        return float(self.loss_sum) / self.progress.loss_denominator

    def _seconds(self) -> float:
        """Seconds of training so far, including the time before interruptions, without evaluations."""
        return time.monotonic() - self.clock_start

    def _numbers(self) -> str:
        """Loss, rate and speed, for the progress bar. Waits for a GPU."""
        speed = self.progress.tokens / self._seconds()
        return f"loss {self._mean_loss():.3f}, rate {self._rate(self.progress.step):.1e}, {speed:,.0f} tokens/s"

    def _save_checkpoint(self) -> None:
        """Write a checkpoint."""
        self.progress.seconds = self._seconds()
        self.progress.loss_sum = float(self.loss_sum)
        self.progress.loss_scaling = self.scaler.state_dict()
        self.checkpoints.save(self.model, self.optimizer, self.progress, self.device)
        self.last_checkpoint_at = time.monotonic()

    def _check_finite(self, loss: float, *, before_step: bool = False) -> None:
        """Raise UserError if the loss or the gradient is infinite or not a number.

        ``before_step``: the optimizer step has not been made, so the weights are still good, and a checkpoint is
        written. Otherwise the error happened at some step since the last evaluation.
        """
        norm = float(self.gradient_norm)
        overflow_is_harmless = self.runtime.scales_loss  # the scaler skips such a step
        if math.isfinite(loss) and (math.isfinite(norm) or overflow_is_harmless):
            return
        if before_step:
            self._save_checkpoint()
        kept = from_first(self.checkpoints.last)  # all processes are here, with the same loss
        # Steps are counted from 0 here, and ``progress.step`` is the number of finished ones.
        step = self.progress.step if before_step else self.progress.step - 1
        when = f"{'at' if before_step else 'at or before'} step {step + 1}"
        if not math.isfinite(loss) and step == 0:
            raise UserError(
                "the loss is not finite at the first step, before any training, so the weights are damaged; "
                "use another checkpoint (model.source)"
            )
        raise UserError(
            f"the loss is no longer finite {when} (learning rate {self._rate(step):.3g}, gradient "
            f"norm {norm:.3g}); start a new run with a lower learning rate (lr) or a longer warmup. "
            + (f"The last good state is saved in {kept}" if kept else "No earlier state was saved")
        )


def labels_of(batch: Batch) -> Tensor:
    """The labels of a training batch; the assertion is for the type checker."""
    assert batch.labels is not None
    return batch.labels


def tokens_in(batch: Batch) -> int:
    """The number of tokens without padding, of a batch on the CPU."""
    return batch.ids.numel() if batch.mask is None else int(batch.mask.sum())
