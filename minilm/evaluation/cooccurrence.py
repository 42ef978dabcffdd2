"""Co-occurrence: which labels occur together, with several labels per text.

Among N texts, n_a have label a, and n_ab have both a and b:

    counts[a, b] = n_ab                                          the diagonal is n_a
    lift[a, b]   = P(a, b) / (P(a) P(b)) = n_ab N / (n_a n_b)    1: as often as by chance; 2: twice as often

A comparison between the true and the predicted labels shows which labels a classifier confuses or never combines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CoOccurrence:
    """How often labels occur together. Rows are the first set of labels, columns the second."""

    counts: np.ndarray  # (C, C)
    lift: np.ndarray  # (C, C); NaN if one of the two labels does not occur


def co_occurrence(labels: np.ndarray, others: np.ndarray | None = None) -> CoOccurrence:
    """How often labels (N, C) of 0 and 1 occur together with each other, or with ``others`` (N, C), such as the
    predicted labels of the same texts: then counts[a, b] is the number of texts in which a is true and b is predicted.
    Raises ValueError if there are no texts."""
    others = labels if others is None else others
    if labels.ndim != 2 or labels.shape != others.shape or not len(labels):
        raise ValueError(f"labels and others must have one shape (N, C), N > 0, got {labels.shape} and {others.shape}")
    counts = labels.astype(np.int64).T @ others.astype(np.int64)
    expected = np.outer(labels.sum(axis=0), others.sum(axis=0)) / len(labels)  # if labels were independent
    lift = np.divide(counts, expected, out=np.full(counts.shape, np.nan), where=expected > 0)
    return CoOccurrence(counts, lift)
