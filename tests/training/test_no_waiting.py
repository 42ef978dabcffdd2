"""A step of training never reads a number from its device: a GPU works on while the CPU prepares the next step.

Tensors on torch's device "meta" have shapes but no numbers, so whatever would wait for a GPU (``item``, ``nonzero``, an
index of booleans, a branch on a comparison) fails there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from minilm.config import TrainSection
from minilm.devices import Runtime
from minilm.finetuning.lora import LoRAConfig, add_lora
from minilm.models.architecture import Backbone
from minilm.models.batch import Batch
from minilm.training.loop import Task, _Loop
from minilm.training.objectives import Objective
from minilm.training.state import Checkpoints
from tests.families import FAMILIES, draw_batch, small_model

META = torch.device("meta")


class NoCheckpoints:
    """Nothing to resume from."""

    def restore(self, *_: object) -> None:
        return None


def step(model: Backbone, objective: Objective, labels: torch.Tensor, **task: Any) -> _Loop:
    """One step on the meta device, over two batches that share their denominator."""
    batch = replace(draw_batch([5, 3, 7]), labels=labels)
    batches = [np.arange(3), np.arange(3)]
    made = Task(lambda epoch: batches, lambda rows, epoch: batch, objective, cast(Any, None), cast(Any, None), **task)
    settings = TrainSection(epochs=1, lr=1e-3, batch_size=3, accumulate=2, clip=1.0)
    loop = _Loop(model.to(META).train(), made, settings, Runtime(META), cast(Checkpoints, NoCheckpoints()))
    loop._step(0, batches)
    return loop


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_waits_for_nothing(family: str) -> None:
    loop = step(small_model(family), Objective(label_smoothing=0.1), torch.tensor([0, 1, 2]))
    assert loop.progress.step == 1 and loop.loss_sum.device == META


def test_a_step_with_lora_class_weights_or_several_labels_waits_for_nothing() -> None:
    model = small_model("bert")
    add_lora(model, LoRAConfig(rank=4))
    step(model, Objective(torch.ones(3)), torch.tensor([0, 1, 2]))
    step(small_model("bert"), Objective(multi_label=True), torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]]))


def test_a_step_that_reads_a_number_would_fail_here() -> None:
    def reading(batch: Batch, rows: np.ndarray) -> torch.Tensor:
        return torch.zeros(3, 3, device=META) * float(batch.ids.sum())

    def choosing(batch: Batch, rows: np.ndarray) -> torch.Tensor:
        return batch.ids[batch.ids > 4].sum().expand(3, 3).float()

    for forward in (reading, choosing):
        with pytest.raises(RuntimeError):
            step(small_model("bert"), Objective(), torch.tensor([0, 1, 2]), forward=forward)
