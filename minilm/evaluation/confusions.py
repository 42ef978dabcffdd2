"""Which labels are taken for which, without a table of all of them: C labels have C^2 pairs, N texts at most N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minilm.measures import Number


@dataclass(frozen=True)
class Confused:
    """A label that is taken for another."""

    truth: Number  # class numbers
    predicted: Number
    texts: Number


class Totals(NamedTuple):
    """For each class (C,): texts that have it, texts that are given it, and texts of which both are true."""

    support: np.ndarray
    predicted: np.ndarray
    right: np.ndarray


def class_totals(labels: np.ndarray, predicted: np.ndarray, classes: int) -> Totals:
    """What precision and recall are made of: labels and predictions (N,) of 0..classes-1."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    return Totals(
        np.bincount(labels, minlength=classes),
        np.bincount(predicted, minlength=classes),
        np.bincount(labels[labels == predicted], minlength=classes),
    )


def most_confused(labels: np.ndarray, predicted: np.ndarray, most: int) -> list[Confused]:
    """The pairs of a label and the wrong one that was given for it, the most frequent first, at most so many.

    Of pairs as frequent the lower class numbers come first.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [Confused(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]
