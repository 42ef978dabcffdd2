"""The training task of a run: batches, objective and evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from minilm.config import RunConfig, TrainSection
from minilm.data.batching import collate, length_multiple, make_batches
from minilm.data.splits import keep_rows, strata_of
from minilm.data.tokenization import Encoded, pad_id
from minilm.devices import Runtime
from minilm.evaluation.decisions import fit_decision, threshold_asked_for
from minilm.evaluation.measuring import measure
from minilm.evaluation.metrics import Metrics
from minilm.evaluation.predictor import Forward, predict_scores
from minilm.measures import RANKING_METRICS
from minilm.models.architecture import Backbone
from minilm.reporting.results import Evaluation
from minilm.runs.assembly import PreparedData
from minilm.training.frozen_prefix import FrozenPrefix
from minilm.training.loop import Task
from minilm.training.objectives import Objective, balanced_weights


def make_task(
    config: RunConfig,
    settings: TrainSection,
    prepared: PreparedData,
    model: Backbone,
    runtime: Runtime,
    record: Callable[[list[Evaluation]], None],
    prefix: FrozenPrefix,
) -> Task:
    """The batches, the objective and the evaluation of a run; ``record`` writes the evaluations."""
    train, validation = prepared.train, prepared.data.validation
    encoded, pad = prepared.encoded["train"], pad_id(prepared.tokenizer)
    labels = train.labels[encoded.texts]  # of each row; a window has the labels of its text
    multiple = length_multiple(encoded.lengths, runtime.most_lengths)
    forward = {split: prefix.forward(split, model) for split in ("train", "validation")}
    # Training metrics use as many texts as validation has, which is enough to see overfitting and much faster.
    sample = keep_rows(strata_of(train.labels), min(len(train), len(validation)), config.seed)
    sampled = encoded.rows_of(sample)
    watched: dict[str, tuple[Encoded, np.ndarray, Forward]] = {
        "train": (
            encoded.take(sample), train.labels[sample], lambda batch, rows: forward["train"](batch, sampled[rows])
        ),
        "validation": (prepared.encoded["validation"], validation.labels, forward["validation"]),
    }

    def evaluate() -> dict[str, Metrics]:
        scores = {
            split: predict_scores(model, texts, runtime, pad=pad, forward=how)
            for split, (texts, _, how) in watched.items()
        }
        # The threshold is chosen for each evaluation: early in training, rare labels have low probabilities, so with a
        # threshold of 0.5 none would be assigned, even if the model ranks them well, and all checkpoints would seem
        # equal. (With 0.5, a temperature does not change labels.)
        calibrate = threshold_asked_for(settings, validation.labels.ndim == 2) != 0.5
        decision = fit_decision(settings, validation.labels, scores["validation"], calibrate=calibrate)
        ranking = settings.best in RANKING_METRICS  # they sort all texts for each label
        return {
            split: measure(labels, scores[split], decision, ranking).brief()
            for split, (_, labels, _) in watched.items()
        }

    return Task(
        batches=lambda epoch: make_batches(
            encoded.lengths, settings.batch_size, seed=config.seed, epoch=epoch,
            group_by_length=settings.group_by_length, multiple=multiple,
        ),
        collate=lambda rows, epoch: collate(encoded, rows, labels, pad, multiple=multiple, limit=model.context),
        objective=Objective(
            _class_weights(settings, prepared, labels), settings.label_smoothing, prepared.data.multi_label
        ),
        evaluate=evaluate,
        record=record,
        forward=forward["train"],
        seconds=prefix.seconds,
    )


def _class_weights(settings: TrainSection, prepared: PreparedData, labels: np.ndarray) -> torch.Tensor | None:
    """The class weights for the loss. ``labels``: those of the training rows."""
    if settings.class_weights == "balanced":
        return balanced_weights(labels, len(prepared.data.label_names))
    if isinstance(settings.class_weights, dict):
        return torch.tensor([float(settings.class_weights.get(name, 1)) for name in prepared.data.label_names])
    return torch.tensor(settings.class_weights) if settings.class_weights else None
