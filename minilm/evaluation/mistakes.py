"""Choose a classifier's mistakes that are worth reading: those with the highest confidence, and those between the most
confused labels.

The *wrongness* of a mistake is the probability that it gives to a wrong answer. With one label per text, it is the
probability of the predicted label; with several, the maximum over the wrong labels:

    one label      p_predicted                      several      max over wrong labels of |p - y|
"""

from __future__ import annotations

import numpy as np

from minilm.evaluation.confusions import Confused


def wrongness(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) the wrongness of each text; 0 if its prediction is right. labels and predicted: (N,), or (N, C) of 0 and 1.
    probabilities: (N, C)."""
    if labels.ndim == 2:
        return np.where(labels != predicted, np.abs(probabilities - labels), 0.0).max(axis=1)
    of_predicted: np.ndarray = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]
    return np.where(labels != predicted, of_predicted, 0.0)


def surest_mistakes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, most: int) -> list[int]:
    """The rows of the ``most`` mistakes with the highest wrongness; equal ones in the order of rows."""
    order = np.argsort(-wrongness(labels, predicted, probabilities), kind="stable")[:most]
    wrong = labels != predicted
    wrong = wrong.any(axis=1) if wrong.ndim == 2 else wrong
    return [int(row) for row in order if wrong[row]]


def texts_of_pair(
    pair: Confused, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, most: int
) -> list[int]:
    """The ``most`` rows of a pair of confused labels with the highest confidence. labels and predicted: (N,)."""
    rows = np.flatnonzero((labels == pair.truth) & (predicted == pair.predicted))
    return rows[np.argsort(-probabilities[rows, pair.predicted], kind="stable")][:most].tolist()
