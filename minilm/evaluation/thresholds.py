"""Decision thresholds: the probability from which a label is assigned, chosen on validation data.

A label is assigned if its probability is at least the threshold. For the accuracy of a calibrated model, 0.5 is the
best threshold. F1 and the Jaccard index do not reward labels that are rightly not assigned, so for a rare label a lower
threshold is better (Lipton et al. 2014, "Optimal Thresholding of Classifiers to Maximize F1 Measure").

For one label, the search is exact. N texts sorted by probability can be cut at up to N + 1 places. S texts have the
label. If k texts are above a cut and TP_k of them have the label:

    F1 = 2 TP_k / (k + S)            Jaccard = TP_k / (k + S - TP_k)

All cuts together need one sort and one running sum, O(N log N). Macro F1 is the mean over labels, so each label's
threshold can be chosen separately. The Jaccard index of several labels is the mean over texts of |T ∩ P| / |T ∪ P|, T
the true and P the assigned labels, so the effect of one label depends on the others. Its thresholds are chosen exactly,
one label at a time with the others fixed, again and again until none improves (coordinate ascent).

A cut is a gap between the lowest probability above it and the highest below it. The threshold is 0.5 if that is in the
gap, otherwise the middle of the gap. If several cuts are equally good, the one nearest to 0.5 is used, so that a label
without validation texts keeps 0.5. A threshold looks better than it is on the data on which it was chosen, and much
better if these are few texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

EQUAL = 1e-12  # values that differ by less are equally good, as running sums have rounding errors
SWEEPS = 50  # the most passes over all labels; a few are usually enough


class Cuts(NamedTuple):
    """All K <= N + 1 ways to cut N texts by one label's probability, from no text to all texts above the cut."""

    order: np.ndarray  # (N,) texts, the most probable first
    chosen: np.ndarray  # (K,) number of texts above the cut
    threshold: np.ndarray  # (K,)


def find_cuts(probabilities: np.ndarray) -> Cuts:
    """The cuts of probabilities (N,). Texts of equal probability are on the same side of every cut. If a probability is
    1, no cut leaves all texts below it."""
    order = np.argsort(-probabilities, kind="stable")
    p = probabilities[order].astype(np.float64)
    chosen = np.flatnonzero(np.concatenate([[True], p[1:] != p[:-1], [True]]))
    above = np.concatenate([[1.0], p])[chosen]  # the lowest probability above the cut
    below = np.concatenate([p, [-1.0]])[chosen]  # the highest below it; -1 below the last cut
    middle = (above + below.clip(min=0)) / 2
    middle = np.where(middle > below, middle, above)  # if no float is between the two
    threshold = np.where((below < 0.5) & (above >= 0.5), 0.5, middle)
    possible = below < above  # False for the cut above all texts if a probability is 1
    return Cuts(order, chosen[possible], threshold[possible])


def _best(values: np.ndarray, cuts: Cuts) -> int:
    """The index of the cut with the highest value (K,); among equal values, that nearest to 0.5."""
    good = np.flatnonzero(values >= values.max() - EQUAL)
    return int(good[np.argmin(np.abs(cuts.threshold[good] - 0.5))])


# --- One label, or two classes ---

# The value of a cut: true positives (K,), chosen texts (K,), texts with the label, all texts -> (K,). 0/0 is 0.
Criterion = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def f1(hits: np.ndarray, chosen: np.ndarray, support: int, rows: int) -> np.ndarray:
    """2 TP / (k + S)."""
    return 2 * hits / np.maximum(chosen + support, 1)


def jaccard(hits: np.ndarray, chosen: np.ndarray, support: int, rows: int) -> np.ndarray:
    """TP / (k + S - TP). It increases with F1, so it has the same best cut."""
    return hits / np.maximum(chosen + support - hits, 1)


def macro_f1(hits: np.ndarray, chosen: np.ndarray, support: int, rows: int) -> np.ndarray:
    """The mean F1 of the two classes "has the label" and "does not have the label"."""
    rejected_rightly = rows - chosen - support + hits
    return (f1(hits, chosen, support, rows) + f1(rejected_rightly, rows - chosen, rows - support, rows)) / 2


def accuracy(hits: np.ndarray, chosen: np.ndarray, support: int, rows: int) -> np.ndarray:
    """(TP + TN) / N."""
    return (rows - chosen - support + 2 * hits) / rows


class Threshold(NamedTuple):
    """A threshold, and the criterion's value on the data on which it was chosen."""

    threshold: float
    value: float


def best_threshold(truth: np.ndarray, probabilities: np.ndarray, criterion: Criterion = f1) -> Threshold:
    """The best threshold of one label: truth (N,) of 0 and 1, probabilities (N,).

    With two classes and one label per text, truth is 1 for the second class, and the probabilities are those of the
    second class; ``macro_f1`` treats both classes equally. Raises ValueError if there are no texts, or for numbers that
    are not probabilities.
    """
    _check(truth, probabilities)
    cuts = find_cuts(probabilities)
    hits = np.concatenate([[0], np.cumsum(truth[cuts.order])])[cuts.chosen]
    values = criterion(hits, cuts.chosen, int(truth.sum()), len(truth))
    best = _best(values, cuts)
    return Threshold(float(cuts.threshold[best]), float(values[best]))


def _check(truth: np.ndarray, probabilities: np.ndarray) -> None:
    if truth.shape != probabilities.shape or not truth.size:
        raise ValueError(f"truth and probabilities must have one shape (N,), got {truth.shape}, {probabilities.shape}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must be from 0 to 1")


# --- Several labels ---


def f1_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,) thresholds with the highest macro F1: labels (N, C) of 0 and 1, probabilities (N, C)."""
    _check(labels, probabilities)
    columns = zip(labels.T, probabilities.T, strict=True)
    return np.array([best_threshold(y, p).threshold for y, p in columns])


def jaccard_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,) thresholds with a high Jaccard index, as ``metrics.multilabel_metrics`` computes it: changing the threshold
    of any single label does not improve it.

    The ascent runs twice, from 0.5 and from the thresholds for F1, and the better result is used. So it is not worse
    than either on the data on which it was chosen.
    """
    _check(labels, probabilities)
    starts = np.full(labels.shape[1], 0.5), f1_thresholds(labels, probabilities)
    cuts = [find_cuts(p) for p in probabilities.T]
    thresholds, _ = max((_ascend(labels, probabilities, cuts, start) for start in starts), key=lambda end: end[1])
    return thresholds


def _ascend(
    labels: np.ndarray, probabilities: np.ndarray, cuts: list[Cuts], start: np.ndarray
) -> tuple[np.ndarray, float]:
    """Improve the thresholds ``start``, one label at a time, until none improves: thresholds (C,), Jaccard index."""
    thresholds, chosen = start.copy(), (probabilities >= start).astype(np.int64)  # (C,), (N, C)
    value = float(_jaccard_of(labels, chosen).mean())
    for _ in range(SWEEPS):
        before = value
        for c, ways in enumerate(cuts):
            chosen[:, c] = 0
            without = _jaccard_of(labels, chosen)  # (N,)
            chosen[:, c] = 1
            gain = _jaccard_of(labels, chosen) - without  # of each text, from adding the label
            values = without.mean() + np.concatenate([[0], np.cumsum(gain[ways.order])])[ways.chosen] / len(labels)
            best = _best(values, ways)
            if values[best] > value + EQUAL:
                thresholds[c], value = ways.threshold[best], float(values[best])
            chosen[:, c] = probabilities[:, c] >= thresholds[c]
        if value <= before + EQUAL:
            break
    return thresholds, value


def _jaccard_of(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """|T ∩ P| / |T ∪ P| of each text (N,); 1 if both are empty."""
    both, either = (labels & chosen).sum(axis=1), (labels | chosen).sum(axis=1)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)
