"""Weights & Biases: ``WANDB_PROJECT``, ``WANDB_ENTITY`` and ``WANDB_MODE`` are read by its own package.

A run's files are in ``RUN/trackers/wandb/``. W&B counts calls as steps, and refuses a step that is lower than the last;
so the optimizer's step is a value of its own, ``step``, which is the x-axis of all curves.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb

from minilm.runs.trackers.protocol import PROJECT, TrackedRun


class WeightsAndBiases:
    """One run. A resumed run has the same id."""

    def start(self, run: TrackedRun, id: str) -> str:
        id = id or secrets.token_hex(8)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=run.group or None,
            name=run.name,
            notes=run.link,
            id=id,
            resume="allow",
            dir=str(run.place),
            config=run.config,
            settings=wandb.Settings(console="off", save_code=False),
        )
        for stage in ("", "adaptation/"):
            self.run.define_metric(f"{stage}step", hidden=True)
            self.run.define_metric(f"{stage}*", step_metric=f"{stage}step")
        return id

    def log(self, step: int, values: Mapping[str, float], stage: str) -> None:
        self.run.log({f"{stage}{name}": value for name, value in {"step": step, **values}.items()})

    def finish(self, step: int, metrics: Mapping[str, float], figures: Sequence[Path]) -> None:
        self.run.summary.update(dict(metrics))
        if figures:
            self.run.log({f"figures/{figure.stem}": wandb.Image(str(figure)) for figure in figures})

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
