"""Count which labels are confused, without the table of all C^2 pairs: N texts have at most N pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minilm.measures import Number


@dataclass(frozen=True)
class Confused:
    """How many texts with one label got another label."""

    truth: Number  # class numbers
    predicted: Number
    texts: Number


class Totals(NamedTuple):
    """(C,) for each class: the number of texts with this true label, with this predicted label, and with both."""

    support: np.ndarray
    predicted: np.ndarray
    right: np.ndarray


def class_totals(labels: np.ndarray, predicted: np.ndarray, classes: int) -> Totals:
    """The counts for precision and recall, from labels and predictions (N,) of 0..classes-1."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    return Totals(
        np.bincount(labels, minlength=classes),
        np.bincount(predicted, minlength=classes),
        np.bincount(labels[labels == predicted], minlength=classes),
    )


def most_confused(labels: np.ndarray, predicted: np.ndarray, most: int) -> list[Confused]:
    """The ``most`` most frequent pairs of a true label and a wrong predicted label, the most frequent first.

    Equally frequent pairs are in the order of their class numbers.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [Confused(int(pairs[0, i]), int(pairs[1, i]), int(counts[i])) for i in order]
