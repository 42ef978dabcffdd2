"""``minilm.load_model``: load a whole model, or an adapter with its base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from minilm import hub
from minilm.checkpoints import models
from minilm.checkpoints.adapters import is_adapter, load_adapted_model
from minilm.models.architecture import Backbone
from minilm.models.heads import HeadConfig


def holds_model(folder: Path) -> bool:
    """Whether a folder contains a model or an adapter."""
    return (folder / "config.json").is_file() or is_adapter(folder)


def load_model(
    source: str | Path,
    task: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    head: HeadConfig | None = None,
    dtype: models.Dtype = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
) -> Backbone:
    """Load a checkpoint, or an adapter with its base model, in evaluation mode.

    Args:
        source: a folder, a catalogue name or a Hub id.
        task: "encode" (for T5 its encoder), "classify" or "lm"; None: the checkpoint's task.
        labels: the names of the classes of a new head; None: those of the checkpoint's head.
        head: the settings of a new head of minilm; None: those of the checkpoint's head, or of the family's.
            A trained head is kept if labels and settings are equal to its own; otherwise a new head starts untrained.
            An adapter always has its own task, labels and head.
        dtype: of the weights; None: the widest of the stored dtypes; "stored": the stored dtype of each weight, but
            the widest for the base of an adapter.
        device: of the weights; None: the CPU.
        revision: a branch, tag or commit on the Hub.

    Raises:
        UserError: a file is missing or damaged; a tensor is missing, unexpected or has a wrong shape; there is no
            trained head for the task, and the labels of a new one are not given; or an adapter is for another task, or
            does not name its task and no task is given.
    """
    folder = hub.resolve_model(str(source), revision or "")
    if is_adapter(folder):
        return load_adapted_model(folder, task, labels=labels, head=head, dtype=dtype, device=device)
    return models.load_model(folder, task, labels=labels, head=head, dtype=dtype, device=device)
