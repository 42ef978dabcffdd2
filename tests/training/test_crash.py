"""A kill at any moment: the folder as it is just before each change of a file is what a kill would leave there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from minilm.checkpoints.models import new_model
from minilm.config import TrainSection
from minilm.devices import Runtime
from minilm.evaluation.metrics import Metrics
from minilm.models.batch import Batch
from minilm.models.gpt2 import GPT2Config
from minilm.training.loop import Task, train
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints, trained_parameters
from tests.records import measured

IDS = torch.randint(20, (16, 6), generator=torch.Generator().manual_seed(0))
LABELS = IDS[:, 0] % 2
SETTINGS = TrainSection(
    epochs=3, lr=1e-2, batch_size=4, accumulate=2, evaluate_every=3, checkpoint_minutes=0, best="loss"
)  # steps 3 and 6 are evaluated


@contextmanager
def photographed(folder: Path, album: Path) -> Iterator[list[Path]]:
    """Copies of the folder, each as it was just before a file in it was flushed, renamed, linked or removed."""
    photographs: list[Path] = []

    def photograph(function: Any) -> Any:
        @wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if folder.exists():
                place = album / str(len(photographs))
                shutil.copytree(folder, place)
                for unfinished in place.rglob(".*.tmp"):  # of a file being written, only half may be on the disk
                    if unfinished.is_file():
                        os.truncate(unfinished, unfinished.stat().st_size // 2)
                photographs.append(place)
            return function(*arguments, **options)

        return wrapped

    names = ("fsync", "rename", "replace", "link", "unlink", "rmdir")
    with mock.patch.multiple(os, **{name: photograph(getattr(os, name)) for name in names}):
        yield photographs


def run(folder: Path) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Train to the end, from wherever the folder's checkpoint stands: the weights and the evaluations."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, context=8, width=8, depth=1, heads=2, dropout=0.3)
    model: nn.Module = new_model("gpt2", config, "classify", labels=["a", "b"])

    def batches(epoch: int) -> list[np.ndarray]:
        return np.array_split(np.random.default_rng(epoch).permutation(16), 4)

    def evaluate() -> dict[str, Metrics]:
        model.eval()
        loss = F.cross_entropy(model(IDS), LABELS).item()
        model.train()
        return {"validation": measured(loss=loss)}

    def collate(rows: np.ndarray, epoch: int) -> Batch:
        return Batch(IDS[rows], labels=LABELS[rows])

    task = Task(batches, collate, Objective(), evaluate, record=lambda history: None)
    progress = train(model, task, SETTINGS, Runtime(torch.device("cpu")), Checkpoints(folder))
    assert progress.stopped == "finished"
    history = [(entry.step, entry.train_loss, entry.validation) for entry in progress.history]
    return trained_parameters(model), history


def test_a_run_killed_at_any_change_of_a_file_ends_as_the_one_that_was_not(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    (tmp_path / "album").mkdir()
    with photographed(folder, tmp_path / "album") as photographs:
        weights, history = run(folder)
    assert len(photographs) > 30
    stages = set()
    for photograph in photographs:
        last = Checkpoints(photograph).last()
        stages.add(last and last.name)
        found_weights, found_history = run(photograph)
        assert found_history == history, photograph
        assert all(torch.equal(found_weights[name], tensor) for name, tensor in weights.items()), photograph
        assert {path.name for path in photograph.iterdir()} == {"000002-step-6", "best.safetensors"}, photograph
    assert stages == {None, "000001-step-3", "000002-step-6"}
