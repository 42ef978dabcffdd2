"""Which mistakes of a classifier are worth reading: the ones it is surest of, and those between the labels that it
confuses most.

A mistake's *wrongness* is how much probability it gives to what is not so. With one label a text, that of the label it
predicts; with several, the largest over the labels that it gets wrong:

    one label      p_predicted                      several      max over wrong labels of |p - y|
"""

from __future__ import annotations

import numpy as np

from minilm.evaluation.confusions import Confused


def wrongness(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) of every text, 0 if its prediction is right. labels and predicted (N,), or (N, C) of 0 and 1; (N, C)."""
    if labels.ndim == 2:
        return np.where(labels != predicted, np.abs(probabilities - labels), 0.0).max(axis=1)
    of_predicted: np.ndarray = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]
    return np.where(labels != predicted, of_predicted, 0.0)


def surest_mistakes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, most: int) -> list[int]:
    """The rows of the mistakes with the most wrongness, at most so many; of equals the first."""
    order = np.argsort(-wrongness(labels, predicted, probabilities), kind="stable")[:most]
    wrong = labels != predicted
    wrong = wrong.any(axis=1) if wrong.ndim == 2 else wrong
    return [int(row) for row in order if wrong[row]]


def texts_of_pair(
    pair: Confused, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, most: int
) -> list[int]:
    """The rows of a confused pair, the surest first, at most so many: labels and predicted (N,), one label a text."""
    rows = np.flatnonzero((labels == pair.truth) & (predicted == pair.predicted))
    return rows[np.argsort(-probabilities[rows, pair.predicted], kind="stable")][:most].tolist()
