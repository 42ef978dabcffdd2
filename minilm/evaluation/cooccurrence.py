"""Which labels are given together, with several labels per text.

Among N texts, n_a have label a, and n_ab have both a and b:

    counts[a, b] = n_ab                                          the diagonal is n_a
    lift[a, b]   = P(a, b) / (P(a) P(b)) = n_ab N / (n_a n_b)    1: as often as by chance; 2: twice as often

Compared between the true and the predicted labels, it shows what a classifier confuses or never gives together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CoOccurrence:
    """How often labels meet. Rows are the first set of labels, columns the second."""

    counts: np.ndarray  # (C, C)
    lift: np.ndarray  # (C, C); NaN if one of the two labels does not occur


def co_occurrence(labels: np.ndarray, others: np.ndarray | None = None) -> CoOccurrence:
    """How often labels (N, C) of 0 and 1 meet each other; or others (N, C), such as the predicted ones of the same
    texts: counts[a, b] is then in how many texts a is true and b is predicted. Raises ValueError without a text."""
    others = labels if others is None else others
    if labels.ndim != 2 or labels.shape != others.shape or not len(labels):
        raise ValueError(f"one text or more: labels {labels.shape}, others {others.shape}")
    counts = labels.astype(np.int64).T @ others.astype(np.int64)
    expected = np.outer(labels.sum(axis=0), others.sum(axis=0)) / len(labels)  # by chance
    lift = np.divide(counts, expected, out=np.full(counts.shape, np.nan), where=expected > 0)
    return CoOccurrence(counts, lift)
