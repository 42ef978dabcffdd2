"""The training loop: read texts in batches, measure the loss, follow its gradient, and keep the best model seen.

    for each epoch, for each batch:
        loss      = objective(model(batch), labels)
        gradient  = d loss / d weights                  (backpropagation)
        gradient *= min(1, clip / ||gradient||)         (clipping, Pascanu et al. 2013)
        weights   = AdamW(weights, gradient, rate(step))
    now and then: measure on validation texts; remember the weights that did best; stop when they no longer improve.

Nothing inside a classifier's step waits for a GPU, but for float16's loss scaling: losses are added up there, and read
when something is shown.
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
from minilm.training.objectives import LanguageObjective, Objective
from minilm.training.optimizer import learning_rate, make_optimizer, steps_per_epoch_of
from minilm.training.state import Checkpoints, Progress


@dataclass(frozen=True)
class Task:
    """What to learn, and from which texts."""

    batches: Callable[[int], Sequence[np.ndarray]]  # epoch -> the row numbers of each batch; as many every epoch
    collate: Callable[[np.ndarray, int], Batch]  # row numbers and epoch -> the batch, on the CPU
    objective: Objective | LanguageObjective
    evaluate: Callable[[], dict[str, Metrics]]  # measures the model as it is now: on "validation", perhaps on "train"
    record: Callable[[list[Evaluation]], None]  # keeps all evaluations so far where others can read them
    forward: Forward | None = None  # how scores are computed, if not by the model from the start
    seconds: float = 0.0  # of work done before, which belongs to training


def train(
    model: nn.Module, task: Task, settings: TrainSection, runtime: Runtime, checkpoints: Checkpoints
) -> Progress:
    """Train to the last epoch, the time limit, or the last improvement; leave the best weights in the model.

    Resumes from the last checkpoint if there is one, and on a CPU ends bit for bit as an uninterrupted run does.

    Raises:
        UserError: the loss is no longer finite, or the checkpoint is damaged.
        Interrupted: SIGINT or SIGTERM came; the state is kept.
    """
    return _Loop(model, task, settings, runtime, checkpoints).run()


class _Loop:
    """The parts of the loop, and what they share: the model, the optimizer, the progress."""

    def __init__(
        self, model: nn.Module, task: Task, settings: TrainSection, runtime: Runtime, checkpoints: Checkpoints
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.device, self.runtime, self.checkpoints = runtime.device, runtime, checkpoints
        self.optimizer = make_optimizer(model, settings, runtime)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=runtime.scales_loss)
        self.progress = checkpoints.restore(model, self.optimizer, self.device) or Progress()
        if self.scaler.is_enabled() and self.progress.loss_scaling:
            self.scaler.load_state_dict(self.progress.loss_scaling)
        self.steps_per_epoch = steps_per_epoch_of(len(task.batches(0)), settings)
        self.steps = settings.epochs * self.steps_per_epoch
        precise = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no float64
        self.loss_sum = torch.tensor(self.progress.loss_sum, dtype=precise, device=self.device)
        self.gradient_norm = torch.zeros((), device=self.device)
        # The start time as if training had never paused: evaluation time is shifted out of it.
        self.started = time.monotonic() - self.progress.seconds - task.seconds
        self.saved = time.monotonic()

    def run(self) -> Progress:
        progress = self.progress
        training_mode(self.model)
        with recorded_signals() as recorded, progress_bar(self.steps, progress.step) as bar:
            for epoch, batches in self._batches_left():
                self._step(epoch, batches)
                if bar.update():  # it is drawn anew, twice a second at most: only then are numbers read
                    bar.set_postfix_str(self._numbers(), refresh=False)
                stop = self._reason_to_stop()
                if stop or self._evaluation_due():
                    self._evaluate(stop)
                if recorded:
                    self._check_finite(float(self.loss_sum))
                    self._keep()
                    raise Interrupted(recorded[0], self.checkpoints.folder.parent)
                if progress.stopped:
                    break
        self.checkpoints.put_best_back(self.model)
        self.model.eval()
        return progress

    def _batches_left(self) -> Iterator[tuple[int, Sequence[np.ndarray]]]:
        """The batches of each step still to do: its epoch, and row numbers, ``accumulate`` batches per step."""
        if self.progress.stopped:
            return
        first_epoch, skipped = divmod(self.progress.step, self.steps_per_epoch)
        size = self.settings.accumulate
        for epoch in range(first_epoch, self.settings.epochs):
            batches = self.task.batches(epoch)
            for start in range(skipped * size, len(batches), size):
                yield epoch, batches[start : start + size]
            skipped = 0

    def _step(self, epoch: int, batches: Sequence[np.ndarray]) -> None:
        """One step of the optimizer, along the gradient of the mean loss over all rows of these batches."""
        objective, progress = self.task.objective, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(progress.step)
        loaded = [self.task.collate(rows, epoch) for rows in batches]
        denominator = sum(objective.denominator(labels_of(batch)) for batch in loaded)
        loss = torch.zeros((), device=self.device)
        for rows, on_cpu in zip(batches, loaded, strict=True):
            batch = on_cpu.to(self.device)
            with self.runtime.autocast():
                scores = self.model(batch) if self.task.forward is None else self.task.forward(batch, rows)
                part = objective.sum(scores, labels_of(batch)) / denominator
            self.scaler.scale(part).backward()
            loss += part.detach()
        self.scaler.unscale_(self.optimizer)
        self.gradient_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        if self.device.type == "cpu":  # a GPU would have to be waited for: there _evaluate finds out
            self._check_finite(float(loss), before_step=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

        self.loss_sum += loss * denominator
        progress.loss_denominator += denominator
        progress.tokens += sum(tokens_in(batch) for batch in loaded)
        progress.step += 1

    def _rate(self, step: int) -> float:
        return learning_rate(step, settings=self.settings, steps_per_epoch=self.steps_per_epoch)

    def _evaluation_due(self) -> bool:
        """Every so many steps, or after every epoch."""
        return self.progress.step % (self.settings.evaluate_every or self.steps_per_epoch) == 0

    def _reason_to_stop(self) -> str:
        if self.progress.step == self.steps:
            return "finished"
        return "max_minutes" if 0 < 60 * self.settings.max_minutes <= self._seconds() else ""

    def _evaluate(self, stop: str) -> None:
        """Measure, keep the best weights, decide whether to stop, and keep the state."""
        progress, settings = self.progress, self.settings
        self._check_finite(float(self.loss_sum))
        seconds = self._seconds()
        metrics = self.task.evaluate()
        self._check_finite(metrics["validation"].loss)

        value, loss = metrics["validation"][settings.best], metrics["validation"]["loss"]
        # Of few validation texts many evaluations get the same right: the loss still tells them apart.
        breaks_tie = value == progress.best_value and progress.best_loss is not None and loss < progress.best_loss
        enough = is_better(settings.best, value, progress.best_value, settings.min_delta)
        enough = enough or (breaks_tie and not settings.min_delta)
        progress.bad_evaluations = 0 if enough else progress.bad_evaluations + 1
        if breaks_tie or is_better(settings.best, value, progress.best_value):
            progress.best_step, progress.best_value, progress.best_loss = progress.step, value, loss
            self.checkpoints.keep_best(self.model)
        self.started = time.monotonic() - seconds
        early = 0 < settings.patience <= progress.bad_evaluations
        progress.stopped = stop or ("early stopping" if early else "")

        entry = self._entry(metrics, seconds)
        progress.history.append(entry)
        progress.loss_denominator = 0.0
        self.loss_sum.zero_()
        self.task.record(progress.history)
        show_evaluation(entry, settings, best=progress.best_step == progress.step)
        if progress.stopped or time.monotonic() - self.saved >= 60 * settings.checkpoint_minutes:
            self._keep()

    def _entry(self, metrics: dict[str, Metrics], seconds: float) -> Evaluation:
        """What one evaluation leaves in ``metrics.jsonl``."""
        progress, norm = self.progress, float(self.gradient_norm)
        return Evaluation(
            step=progress.step,
            epoch=progress.step / self.steps_per_epoch,
            lr=self.optimizer.param_groups[0]["lr"],
            train_loss=self._mean_loss(),
            grad_norm=norm if math.isfinite(norm) else None,  # it overflowed float16: the step was skipped
            tokens_per_second=progress.tokens / seconds,
            seconds=seconds,
            **metrics,
        )

    def _mean_loss(self) -> float:
        """The mean loss of the texts that were trained on since the last evaluation."""
        return float(self.loss_sum) / self.progress.loss_denominator

    def _seconds(self) -> float:
        """Seconds of training so far, over all parts of the run, without evaluations."""
        return time.monotonic() - self.started

    def _numbers(self) -> str:
        """What stands beside the bar."""
        speed = self.progress.tokens / self._seconds()
        return f"loss {self._mean_loss():.3f}, rate {self._rate(self.progress.step):.1e}, {speed:,.0f} tokens/s"

    def _keep(self) -> None:
        """Write a checkpoint."""
        self.progress.seconds = self._seconds()
        self.progress.loss_sum = float(self.loss_sum)
        self.progress.loss_scaling = self.scaler.state_dict()
        self.checkpoints.save(self.model, self.optimizer, self.progress, self.device)
        self.saved = time.monotonic()

    def _check_finite(self, loss: float, *, before_step: bool = False) -> None:
        """Stop if the loss or the gradient is infinite or not a number; keep the state if it is still good."""
        norm = float(self.gradient_norm)
        skipped = self.runtime.scales_loss  # a gradient that overflows float16 changes nothing
        if math.isfinite(loss) and (math.isfinite(norm) or skipped):
            return
        if before_step:
            self._keep()
        kept = self.checkpoints.last()
        step = self.progress.step if before_step else self.progress.step - 1
        if not math.isfinite(loss) and step == 0:
            raise UserError(
                "the loss is not finite at the first step, before anything was learned: the weights are broken; "
                "take another checkpoint (model.source)"
            )
        raise UserError(
            f"the loss is no longer finite at step {step + 1} (learning rate {self._rate(step):.3g}, gradient "
            f"norm {norm:.3g}); start a new run with a lower rate (lr) or a longer warmup. "
            + (f"The last good state is kept in {kept}" if kept else "No state from before it was kept")
        )


def labels_of(batch: Batch) -> Tensor:
    """The labels, which batches to train on always have."""
    assert batch.labels is not None
    return batch.labels


def tokens_in(batch: Batch) -> int:
    """Tokens that are no padding."""
    return batch.ids.numel() if batch.mask is None else int(batch.mask.sum())
