"""A model's scores of its validation texts, saved with the model as ``validation.safetensors``.

From them, a threshold for a required precision can be found later without the texts, also for an ensemble of runs.

    scores (N, C) float32     the raw scores (logits), without a temperature
    labels (N,) int64         or (N, C) uint8 of 0 and 1 with several labels per text
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from minilm.callers import option
from minilm.checkpoints.files import read_tensors, write_tensors
from minilm.errors import UserError
from minilm.evaluation.decisions import Decision
from minilm.evaluation.selective import OperatingPoint, threshold_for_precision
from minilm.model_files import VALIDATION

MOST = 2**24  # the most numbers that are saved, 64 MiB
NEVER = 2.0  # a threshold above every probability


@dataclass(frozen=True)
class ValidationScores:
    """Scores and labels of N texts."""

    scores: np.ndarray  # (N, C) float32
    labels: np.ndarray  # (N,), or (N, C) of 0 and 1


def write_validation(folder: Path, found: ValidationScores) -> None:
    """Save the scores in a model's folder, unless they take more than 64 MiB."""
    if found.scores.size > MOST:
        return
    kind = np.uint8 if found.labels.ndim == 2 else np.int64
    tensors = {
        "scores": torch.from_numpy(found.scores.astype(np.float32)),
        "labels": torch.from_numpy(found.labels.astype(kind)),
    }
    write_tensors(folder / VALIDATION, tensors)


def read_validation(folder: Path | None, name: str) -> ValidationScores:
    """Read the scores in a model's folder. Raises UserError if they are missing or invalid; ``name``: the model's."""
    path = None if folder is None else folder / VALIDATION
    if path is None or not path.is_file():
        raise UserError(
            f"{name}: has no {VALIDATION}, which {option('--min-precision')} needs and which minilm saves when it "
            f"trains a classifier; train the model again, or use {option('--unsure-below')} instead"
        )
    tensors = {key: tensor.numpy() for key, tensor in read_tensors(path).items()}
    scores, labels = tensors.get("scores"), tensors.get("labels")
    if scores is None or labels is None or scores.ndim != 2 or labels.shape not in (scores.shape, scores.shape[:1]):
        raise UserError(f"{path}: was changed after the run wrote it; train the model again")
    return ValidationScores(scores, labels.astype(np.int64))


def points_for_precision(decision: Decision, found: ValidationScores, precision: float) -> list[OperatingPoint]:
    """The lowest thresholds at which the fraction ``precision`` of the answers is right, on the validation texts.

    With one label per text, one threshold for the probability of the given label; with several, one for each label.
    """
    p = decision.probabilities(found.scores)
    if decision.kind == "multi":
        pairs = zip(p.T, found.labels.T, strict=True)
        return [threshold_for_precision(of_label, truth == 1, precision) for of_label, truth in pairs]
    return [threshold_for_precision(decision.confidence(p), decision.choose(p) == found.labels, precision)]


def with_precision(decision: Decision, points: Sequence[OperatingPoint]) -> Decision:
    """The decision with a threshold for each label; a label that does not reach the precision is never given."""
    return replace(decision, threshold=np.array([point.threshold if point.reached else NEVER for point in points]))
