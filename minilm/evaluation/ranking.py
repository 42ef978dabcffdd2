"""Ranking metrics: whether texts with a label have higher scores than texts without it. They need no threshold.

Sort all N texts by a label's score s, in descending order. P texts have the label (positives), N - P do not
(negatives).

**ROC AUC** is the area under the curve of recall against the false positive rate. It is also the probability that a
random positive scores higher than a random negative, where a tie counts as half (Hanley and McNeil 1982). It equals
the Mann-Whitney U divided by P (N - P), and is computed from the ranks of the positives. The lowest score has rank 1;
equal scores have their mean rank:

    AUC = (sum of the positives' ranks - P (P + 1) / 2) / (P (N - P))            0.5 for random scores

**Average precision** is the area under the curve of precision against recall, in steps. Each distinct score is a cut;
the precision of the texts at or above it is weighted by the recall that the cut adds. Texts of equal score are on the
same side of every cut:

    AP = sum_k (recall_k - recall_{k-1}) precision_k                             P / N for random scores

If positives are rare, the many negatives keep the AUC high; average precision shows whether the top texts are right.

With one label per text, each class is compared with all others (one versus rest), also if there are only two classes.
The *macro* average is the mean over labels. Both metrics need one sort per label, O(N log N).
"""

from __future__ import annotations

import numpy as np


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean of ``roc_auc_per_label`` over the labels for which it is defined; NaN if there are none.

    scikit-learn's average is NaN if it is undefined for any label.
    """
    areas = roc_auc_per_label(labels, scores)
    known = ~np.isnan(areas)
    return float(areas[known].mean()) if known.any() else float("nan")


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean of ``average_precision_per_label``.

    With one label per text, it is over the classes that occur, as in the other macro averages; with several, it is over
    all labels. Both are as in scikit-learn.
    """
    areas = average_precision_per_label(labels, scores)
    return float(areas.mean() if labels.ndim == 2 else areas[np.unique(labels)].mean())


def has_pairs(labels: np.ndarray) -> bool:
    """Whether some label has both positives and negatives, so that ROC AUC is defined. labels: (N,) or (N, C)."""
    if labels.ndim == 1:
        return len(np.unique(labels)) > 1
    positives = labels.sum(axis=0)
    return bool(((positives > 0) & (positives < len(labels))).any())


def roc_auc_per_label(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(C,) areas for labels (N,) of 0..C-1, or (N, C) of 0 and 1, and scores (N, C).

    NaN for a label that all or no texts have, as there are no pairs to compare. With one label per text, scores must be
    probabilities or their logarithms, as logits cannot be compared between texts. Raises ValueError if shapes do not
    match.
    """
    return np.array([_roc_auc(y, s) for y, s in _columns(labels, scores)])


def average_precision_per_label(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(C,) average precisions, with the arguments of ``roc_auc_per_label``. 0 for a label that no text has, as in
    scikit-learn."""
    return np.array([_average_precision(y, s) for y, s in _columns(labels, scores)])


def _columns(labels: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each label: whether each text has it, (N,) bool, and its scores (N,)."""
    if scores.ndim != 2 or not scores.size or labels.shape not in (scores.shape, scores.shape[:1]):
        raise ValueError(f"labels and scores must be of the same N > 0 texts, got {labels.shape} and {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN")
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
