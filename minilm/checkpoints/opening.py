"""``minilm.load_model``: load a whole model, or an adapter with its base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from minilm import hub
from minilm.checkpoints import models
from minilm.checkpoints.adapters import load_adapted_model
from minilm.errors import UserError
from minilm.model_files import holds_adapter
from minilm.models.architecture import Backbone
from minilm.models.heads import HeadConfig


def holds_model(folder: Path) -> bool:
    """Whether a folder contains a model or an adapter."""
    return (folder / "config.json").is_file() or holds_adapter(folder)


def load_model(
    source: str | Path,
    task: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    head: HeadConfig | None = None,
    dtype: models.Dtype = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    base: str | Path | None = None,
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
        base: of an adapter, the model that it is opened on: a folder, a catalogue name or a Hub id; None: the one that
            adapter_config.json names.

    Raises:
        UserError: a file is missing or broken; a tensor is missing, unexpected or of the wrong shape; there is no
            trained head for the task and nothing says what a new one is for; an adapter is for something else, or does
            not say for what and no task is given; or a base is given for a model that is no adapter.
    """
    folder = hub.resolve_model(str(source), revision or "")
    if holds_adapter(folder):
        return load_adapted_model(folder, task, labels=labels, head=head, dtype=dtype, device=device, base=base)
    if base is not None:
        raise UserError(f"{folder}: is a whole model, not an adapter; remove the argument base")
    return models.load_model(folder, task, labels=labels, head=head, dtype=dtype, device=device)
