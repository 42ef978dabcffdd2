"""``python -m benchmarks.finetuning_ours METHOD FOLDER PRECISION``: our side of ``benchmarks.finetuning``.

Trains by the functions that ``minilm train`` itself calls, on the texts in FOLDER.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.finetuning import BATCH, LAST, METHODS, RANK, RATE, TOKENS
from benchmarks.processes import serve
from minilm import devices
from minilm.config import (
    DataSection,
    FamilyHeadSection,
    FreezeAllButLast,
    FreezeBackbone,
    FreezeNothing,
    LoraSection,
    ModelSection,
    RunConfig,
    TrainSection,
)
from minilm.data.tokenization import pad_id
from minilm.evaluation.metrics import Metrics
from minilm.models.batch import Batch
from minilm.runs.assembly import fresh_model, prepare
from minilm.runs.folders import write_history
from minilm.runs.task import make_task
from minilm.training.frozen_prefix import cache_activations
from minilm.training.loop import train
from minilm.training.state import Checkpoints

PARTS = {"last": FreezeAllButLast(layers=LAST), "head": FreezeBackbone()}


class Clock:
    """Counts CPU seconds: those of training, but not of its evaluations and checkpoints, which the peer has not."""

    def __init__(self) -> None:
        self.seconds, self.started = 0.0, -1.0  # below 0: it is stopped

    def start(self) -> None:
        """Begin to count, unless it counts already."""
        if self.started < 0:
            self.started = time.process_time()

    def stop(self) -> None:
        """Stop counting."""
        self.seconds += time.process_time() - self.started
        self.started = -1.0


def main(method: str, folder: Path, precision: Literal["float32", "bfloat16"]) -> None:
    """Serve one method."""
    settings = TrainSection(
        epochs=METHODS[method].epochs, lr=RATE, batch_size=BATCH, schedule="linear", best="loss", device="cpu",
        precision=precision,
    )  # fmt: skip
    config = RunConfig(
        name="bench",
        data=DataSection(
            train=str(folder / "train.csv"),
            validation=str(folder / "validation.csv"),
            test=str(folder / "validation.csv"),
            text="sentence1",
            text_pair="sentence2",
            max_tokens=TOKENS,
        ),
        model=ModelSection(source="minilm", head=FamilyHeadSection()),
        freeze=PARTS.get(method, FreezeNothing()),
        lora=LoraSection(RANK) if method == "lora" else None,
        train=settings,
    )
    runtime, prepared = devices.runtime("cpu", precision), prepare(config)
    place = folder / f"{method}-{precision}"

    def work() -> tuple[int, float]:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        model = fresh_model(config, prepared, runtime)
        clock = Clock()
        clock.start()
        prefix = cache_activations(
            model,
            {split: prepared.encoded[split] for split in ("train", "validation")},
            runtime,
            pad=pad_id(prepared.tokenizer),
            budget=settings.cache_mib * 2**20,
            folder=place / "cache",
        )
        task = make_task(config, settings, prepared, model, runtime, partial(write_history, place), prefix)
        clock.stop()
        torch.manual_seed(config.seed)

        def collate(rows: np.ndarray, epoch: int) -> Batch:
            clock.start()
            return task.collate(rows, epoch)

        def evaluate() -> Mapping[str, Metrics]:
            clock.stop()
            return task.evaluate()

        timed = replace(task, collate=collate, evaluate=evaluate)
        train(model, timed, settings, runtime, Checkpoints(place / "checkpoints"))
        return settings.epochs * len(prepared.data.train), clock.seconds

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])  # type: ignore[arg-type]
