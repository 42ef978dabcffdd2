"""A model, layer by layer, without its weights: ``minilm info``."""

from __future__ import annotations

from pathlib import Path

import torch

from minilm.checkpoints.models import load_model
from minilm.config import load_config
from minilm.data import catalog
from minilm.data.sources import load_dataset
from minilm.reporting.summary import summarize
from minilm.runs.assembly import make_model


def describe_model(model: str) -> str:
    """The summary of a config (TOML), a run's folder, a model's folder, a catalogue name or a Hub id.

    The model is built on torch's "meta" device, which has shapes but no memory: any size is told at once.
    """
    path = Path(model)
    if path.suffix == ".toml":
        config = load_config(path)
        entry = catalog.find(config.data.source) if config.data.source else None
        labels = config.data.label_columns or config.data.labels or (entry.data.get("labels") if entry else None)
        labels = labels or load_dataset(config.data, model).label_names
        vocab_size = config.model.config.get("vocab_size", config.tokenizer.vocab_size)
        with torch.device("meta"):
            return summarize(make_model(config, list(labels), vocab_size, model))
    chosen = str(path / "model") if (path / "model" / "config.json").exists() else model
    return summarize(load_model(chosen, device="meta"))
