"""What a run is made of: data, tokens, model and task, as its config says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from minilm import hub
from minilm.checkpoints.configs import make_config, read_config
from minilm.checkpoints.files import read_json
from minilm.checkpoints.models import card_of, load_model, new_model
from minilm.config import RunConfig
from minilm.data.batching import collate, make_batches
from minilm.data.locations import complete
from minilm.data.sources import Dataset, Rows, load_dataset
from minilm.data.splits import keep_rows, strata_of
from minilm.data.tokenization import Encoded, encode, load_tokenizer, pad_id, train_bpe
from minilm.devices import Execution
from minilm.errors import UserError, nearest
from minilm.evaluation.metrics import check_metric
from minilm.evaluation.predictor import Reading, context_of, predict_scores
from minilm.models import ARCHITECTURES
from minilm.models.heads import HeadConfig, mlp_head
from minilm.runs.folders import write_history
from minilm.runs.results import brief, measure
from minilm.training.loop import Task
from minilm.training.objectives import Objective, balanced_weights

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Material:
    """What a run trains and is measured on."""

    data: Dataset
    tokenizer: Tokenizer
    encoded: dict[str, Encoded]  # of each split

    def rows(self, split: str) -> Rows:
        """The texts and labels of a split."""
        rows: Rows = getattr(self.data, split)
        return rows


def prepare(config: RunConfig, where: str) -> Material:
    """Load the data, find or train the tokenizer, and encode every text once.

    Raises UserError where data and config do not go together; ``where`` names the config.
    """
    data = load_dataset(config.data, where)
    check_metric(config.train.best, data.multi_label)
    weights, labels = config.train.class_weights, data.label_names
    if isinstance(weights, list) and len(weights) != len(labels):
        raise UserError(
            f"{where}: train.class_weights must hold one weight for each of the {len(labels)} labels "
            f"({', '.join(labels)}), got {len(weights)}"
        )
    if config.tokenizer.source == "bpe":
        tokenizer = train_bpe(data.train.texts + (data.train.pairs or []), config.tokenizer.vocab_size)
    elif config.tokenizer.source:
        tokenizer = load_tokenizer(config.tokenizer.source)
    else:
        tokenizer = load_tokenizer(config.model.source, config.model.revision)
    encoded = {
        split: encode(tokenizer, rows.texts, rows.pairs, complete(config.data).max_tokens)
        for split, rows in zip(SPLITS, (data.train, data.validation, data.test), strict=True)
    }
    return Material(data, tokenizer, encoded)


def make_model(
    config: RunConfig, labels: list[str], vocab_size: int, where: str, device: torch.device | str = "cpu"
) -> nn.Module:
    """The model to train: a checkpoint with a new head, or one from scratch, drawn from torch's random state.

    labels: of the head; vocab_size: the tokenizer's. Raises UserError where model, tokenizer and config do not go
    together; ``where`` names the config.
    """
    section = config.model
    if section.source:
        folder = hub.resolve_model(section.source, section.revision)
        width = read_config(read_json(folder / "config.json"), str(folder / "config.json")).width
        head = _head(config, width)
        model = load_model(folder, "classify", labels=labels, head=head, dtype=torch.float32, device=device)
    elif section.architecture in ARCHITECTURES:
        settings = {"vocab_size": vocab_size, **section.config}
        model_config = make_config(ARCHITECTURES[section.architecture].config, settings, f"{where}: [model.config]")
        with torch.device(device):
            head = _head(config, model_config.width)
            model = new_model(section.architecture, model_config, "classify", labels=labels, head=head)
    else:
        hint = nearest(section.architecture, ARCHITECTURES)
        known = ", ".join(sorted(ARCHITECTURES))
        raise UserError(f'{where}: model.architecture "{section.architecture}" is not one of ours{hint}: {known}')

    embedded = model.get_parameter("embeddings.token.weight").shape[0]
    # A checkpoint's own tokenizer may have more tokens than the checkpoint: its makers know that they never occur.
    if config.tokenizer.source and embedded < vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {vocab_size:,} tokens, the model only {embedded:,} (model.config.vocab_size)"
        )
    data = complete(config.data)
    if 0 < context_of(model) < data.max_tokens:
        raise UserError(
            f"{where}: data.max_tokens is {data.max_tokens}, but the model reads at most {context_of(model)} "
            "tokens; lower it"
        )
    card, kind = card_of(model), "multi" if data.label_columns else "single"
    card.published["problem_type"] = f"{kind}_label_classification"
    card.extra |= asdict(Reading(data.max_tokens, data.clean, pairs=bool(data.text_pair)))
    return model


def _head(config: RunConfig, width: int) -> HeadConfig | None:
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


def make_task(config: RunConfig, material: Material, model: nn.Module, run_on: Execution, folder: Path) -> Task:
    """The batches, the objective and the measuring of a run; ``folder`` is where evaluations are recorded."""
    settings, train, validation = config.train, material.data.train, material.data.validation
    texts, pad = material.encoded["train"], pad_id(material.tokenizer)
    # As many training texts as validation has tell whether the two drift apart; all would take longer than training.
    sample = keep_rows(strata_of(train.labels), min(len(train), len(validation)), config.seed)
    watched = {
        "train": (take(texts, sample), train.labels[sample]),
        "validation": (material.encoded["validation"], validation.labels),
    }

    def evaluate() -> dict[str, dict[str, Any]]:
        return {
            split: brief(measure(labels, predict_scores(model, encoded, run_on, pad=pad)))
            for split, (encoded, labels) in watched.items()
        }

    return Task(
        batches=lambda epoch: make_batches(texts.lengths, settings.batch_size, seed=config.seed, epoch=epoch),
        collate=lambda rows: collate(texts, rows, train.labels, pad, longest=context_of(model)),
        objective=Objective(_class_weights(config, material.data), settings.label_smoothing, material.data.multi_label),
        evaluate=evaluate,
        record=lambda history: write_history(folder, history),
    )


def _class_weights(config: RunConfig, data: Dataset) -> torch.Tensor | None:
    if config.train.class_weights == "balanced":
        return balanced_weights(data.train.labels, len(data.label_names))
    return torch.tensor(config.train.class_weights) if config.train.class_weights else None


def take(encoded: Encoded, rows: np.ndarray) -> Encoded:
    """The encoded texts of these rows."""
    places = np.concatenate([np.arange(encoded.offsets[i], encoded.offsets[i + 1]) for i in rows])
    offsets = np.concatenate([[0], np.cumsum(encoded.lengths[rows])])
    segments = None if encoded.segments is None else encoded.segments[places]
    return Encoded(encoded.ids[places], offsets, segments, encoded.full_lengths[rows])
