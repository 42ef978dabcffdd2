"""What a run is made of: data, tokens, model and task, as its config says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from minilm import hub
from minilm.checkpoints.configs import make_config, read_config
from minilm.checkpoints.files import read_json
from minilm.checkpoints.models import load_model, new_model
from minilm.config import RunConfig
from minilm.data.batching import collate, make_batches
from minilm.data.sources import Dataset, Rows, load_dataset
from minilm.data.splits import keep_rows, strata_of
from minilm.data.tokenization import Encoded, encode, load_tokenizer, pad_id, train_bpe
from minilm.devices import Execution
from minilm.errors import UserError, nearest
from minilm.evaluation.predictor import context_of, predict_scores
from minilm.models import ARCHITECTURES
from minilm.models.heads import HeadConfig, mlp_head
from minilm.runs.folders import write_history
from minilm.runs.results import brief, measure
from minilm.training.loop import Task
from minilm.training.objectives import balanced_weights, make_objective

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Material:
    """What a run trains and is measured on."""

    data: Dataset
    tokenizer: Tokenizer
    encoded: dict[str, Encoded]  # of each split
    max_tokens: int

    def rows(self, split: str) -> Rows:
        """The texts and labels of a split."""
        rows: Rows = getattr(self.data, split)
        return rows


def prepare(config: RunConfig, where: str = "") -> Material:
    """Load the data, find or train the tokenizer, and encode every text once."""
    data = load_dataset(config.data, where)
    source = config.tokenizer.source or config.model.source
    if source == "bpe":
        texts = data.train.texts + (data.train.pairs or [])
        tokenizer = train_bpe(texts, config.tokenizer.vocab_size)
    else:
        tokenizer = load_tokenizer(source, "" if config.tokenizer.source else config.model.revision)
    limit = config.data.max_tokens
    encoded = {
        split: encode(tokenizer, rows.texts, rows.pairs, limit)
        for split in SPLITS
        for rows in (getattr(data, split),)
    }
    return Material(data, tokenizer, encoded, limit)


def head_settings(config: RunConfig, width: int) -> HeadConfig | None:
    """Our head as the config wants it; None: the family's own."""
    head = config.model.head
    if head.kind == "family":
        return None
    return mlp_head(
        width,
        hidden=head.hidden,
        pooling=head.pooling,
        norm=head.norm,
        activation=head.activation,
        dropout=head.dropout,
    )


def make_model(config: RunConfig, labels: list[str], vocab_size: int, where: str = "") -> nn.Module:
    """The model to train: a checkpoint with a new head, or one from scratch, drawn from torch's random state."""
    section = config.model
    if section.source:
        folder = hub.resolve_model(section.source, section.revision)
        width = read_config(read_json(folder / "config.json"), str(folder / "config.json")).width
        return load_model(folder, "classify", labels=labels, head=head_settings(config, width), dtype=torch.float32)
    if section.architecture not in ARCHITECTURES:
        hint = nearest(section.architecture, ARCHITECTURES)
        raise UserError(
            f'{where}: model.architecture "{section.architecture}" is not one of ours{hint}; '
            f"there are: {', '.join(sorted(ARCHITECTURES))}"
        )
    settings = {"vocab_size": vocab_size, **section.config}
    if settings["vocab_size"] < vocab_size:
        raise UserError(
            f"{where}: model.config.vocab_size must be at least the tokenizer's {vocab_size}, got {settings['vocab_size']}"
        )
    model_config = make_config(ARCHITECTURES[section.architecture].config, settings, f"{where}: [model.config]")
    head = head_settings(config, model_config.width)
    return new_model(section.architecture, model_config, "classify", labels=labels, head=head)


def make_task(config: RunConfig, material: Material, model: nn.Module, run_on: Execution, folder: Path) -> Task:
    """The batches, the objective and the measuring of a run; ``folder`` is where evaluations are recorded."""
    data, settings = material.data, config.train
    train_set, context, pad = material.encoded["train"], context_of(model), pad_id(material.tokenizer)
    weights: list[float] | None = None
    if settings.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, len(data.label_names))
    elif settings.class_weights:
        weights = list(settings.class_weights)
    sample = keep_rows(strata_of(data.train.labels), min(len(data.train), len(data.validation)), config.seed)
    watched = {
        "train": (take(train_set, sample), data.train.labels[sample]),
        "validation": (material.encoded["validation"], data.validation.labels),
    }

    def evaluate() -> dict[str, dict[str, Any]]:
        return {
            split: brief(measure(labels, predict_scores(model, encoded, run_on, pad=pad, context=context)))
            for split, (encoded, labels) in watched.items()
        }

    return Task(
        batches=lambda epoch: make_batches(train_set.lengths, settings.batch_size, seed=config.seed, epoch=epoch),
        collate=lambda rows: collate(train_set, rows, data.train.labels, pad, longest=context),
        objective=make_objective(weights, label_smoothing=settings.label_smoothing, multi_label=data.multi_label),
        evaluate=evaluate,
        record=lambda history: write_history(folder, history),
    )


def take(encoded: Encoded, rows: np.ndarray) -> Encoded:
    """The encoded texts of these rows."""
    places = np.concatenate([np.arange(encoded.offsets[i], encoded.offsets[i + 1]) for i in rows])
    offsets = np.concatenate([[0], np.cumsum(encoded.lengths[rows])])
    segments = None if encoded.segments is None else encoded.segments[places]
    return Encoded(encoded.ids[places], offsets, segments, encoded.full_lengths[rows])
