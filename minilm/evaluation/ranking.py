"""Metrics of a ranking: do the texts that have a label come before those that have not? No threshold is involved.

Sort all N texts by a label's score s, the surest first. P of them have the label (positives), the other N - P have not.

**ROC AUC** is the area under the curve of recall against the false positive rate. It is also the probability that a
random positive scores higher than a random negative, a tie counting half (Hanley and McNeil 1982): Mann and Whitney's U
over P (N - P), from the positives' ranks, 1 for the lowest score, equal scores sharing their mean rank:

    AUC = (sum of the positives' ranks - P (P + 1) / 2) / (P (N - P))            0.5 is what guessing gets

**Average precision** is the area under the curve of precision against recall, in steps: at each cut that the scores
allow, the precision among the texts above it, weighted by the recall that the cut adds. Texts of equal score are on one
side of every cut:

    AP = sum_k (recall_k - recall_{k-1}) precision_k                             P / N is what guessing gets

If positives are rare, the many negatives keep the AUC high; average precision shows whether the first hits are right.

With one label per text, each class is a label that a text has or has not (one against the rest), and so are both of two
classes. The *macro* average is the mean over labels. Both metrics cost a sort per label, O(N log N).
"""

from __future__ import annotations

import numpy as np


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The macro average of ``roc_auc_per_label``: over the labels that have one. NaN if none has.

    scikit-learn's average is NaN if any label has none.
    """
    areas = roc_auc_per_label(labels, scores)
    known = ~np.isnan(areas)
    return float(areas[known].mean()) if known.any() else float("nan")


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The macro average of ``average_precision_per_label``.

    With one label per text, over the classes that some text has, as in the other macro averages; with several, over all
    labels. Both as in scikit-learn.
    """
    areas = average_precision_per_label(labels, scores)
    return float(areas.mean() if labels.ndim == 2 else areas[np.unique(labels)].mean())


def has_pairs(labels: np.ndarray) -> bool:
    """Whether some label is had by some texts and not by others, so that there is a ROC AUC: labels (N,) or (N, C)."""
    if labels.ndim == 1:
        return len(np.unique(labels)) > 1
    positives = labels.sum(axis=0)
    return bool(((positives > 0) & (positives < len(labels))).any())


def roc_auc_per_label(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(C,) areas for labels (N,) of 0..C-1, or (N, C) of 0 and 1, and scores (N, C).

    NaN for a label that all texts have or none has: there is no pair to compare. With one label per text, scores are
    probabilities or their logarithms; logits do not compare between texts. Raises ValueError if shapes do not fit.
    """
    return np.array([_roc_auc(y, s) for y, s in _columns(labels, scores)])


def average_precision_per_label(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The same for average precision: 0 for a label that no text has, as in scikit-learn."""
    return np.array([_average_precision(y, s) for y, s in _columns(labels, scores)])


def _columns(labels: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each label's truth (N,) of booleans, with its scores (N,)."""
    if scores.ndim != 2 or not scores.size or labels.shape not in (scores.shape, scores.shape[:1]):
        raise ValueError(f"metrics need one row or more: labels {labels.shape}, scores {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores that are NaN have no order")
    truth = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(scores.shape[1])
    return list(zip(truth.T, scores.T, strict=True))


def _roc_auc(truth: np.ndarray, scores: np.ndarray) -> float:
    _, tie, size = np.unique(scores, return_inverse=True, return_counts=True)  # (N,), (ties,), lowest score first
    last = np.cumsum(size)  # the highest rank in each tie
    ranks = (last - (size - 1) / 2)[tie]  # (N,)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / positives / negatives)


def _average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    if not truth.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last text of each tie, (K,)
    hits = np.cumsum(truth[order])[ends]  # positives at or above the cut
    precision = hits / (ends + 1)
    return float(np.diff(hits, prepend=0) @ precision / hits[-1])
