"""Find labels that are probably wrong, by confident learning (Northcutt et al. 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels").

The input is the labels of N texts, some of them wrong, and for each text the probabilities of a classifier that was not
trained on it (out of sample: from the other folds, or a test split). A classifier may be overconfident for some classes
and underconfident for others. So each class has its own threshold: t_j is the mean probability of class j over the
texts that are labelled j. A text counts as truly of class j if p_j is at least t_j; if this holds for several classes,
as the most probable of them. This gives the *confident joint*:

    C[i, j] = |{texts labelled i that count as truly j}|

Texts that reach no threshold are in no cell. Scaled so that each row adds up to the number of texts with that label, it
estimates the number of texts for each pair of given and true label (section 4.1):

    Q[i, j] = n_i C[i, j] / sum_j C[i, j]                           n_i texts are labelled i

Off the diagonal, Q estimates how many labels are wrong, but not which. One of these rules selects them (section 4.2):

    noise rate   for each i and j: among the texts labelled i, the Q[i, j] texts with the largest p_j - p_i
    class        for each i: among the texts labelled i, the sum_{j != i} Q[i, j] texts with the smallest p_i
    both         the texts that both rules select

A text whose given label is the most probable one is not selected. The selected texts are sorted in ascending order, the
most suspicious first, by

    self-confidence      p_i                                        the probability of the given label
    normalised margin    (p_i - max_{j != i} p_j + 1) / 2           its distance from the most probable other label

With several labels per text, each label is treated separately, as a problem of two classes: "has it", "has it not".
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Prune = Literal["noise_rate", "class", "both"]
Rank = Literal["self_confidence", "normalized_margin"]
ROUNDING = 1e-6  # tolerance, so that equal probabilities reach their own mean despite rounding


class LabelIssue(NamedTuple):
    """A text whose label is probably wrong."""

    row: int
    given: int  # its label
    suggested: int  # the most probable other class
    score: float  # from 0; the lower, the more suspicious


class MultiLabelIssue(NamedTuple):
    """A label of a text that is probably missing or wrong."""

    row: int
    label: int
    given: bool  # whether the text has the label; the suggestion is the opposite
    score: float  # from 0; the lower, the more suspicious


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """C: (C, C) counts, row = given label, column = true class. labels (N,), probabilities (N, C)."""
    classes = probabilities.shape[1]
    support = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]  # (N,) the given label's probability
    mean = np.bincount(labels, weights=own, minlength=classes) / np.maximum(support, 1)  # t, (C,)
    sure = (probabilities >= mean - ROUNDING) & (support > 0)  # a class without texts has no t
    true = np.where(sure, probabilities, -1.0).argmax(axis=1)
    known = sure.any(axis=1)
    cells = labels[known] * classes + true[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def estimated_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Q: (C, C) estimated numbers of texts, row = given label, column = true class, rounded to whole texts.

    Each row adds up to the number of texts with its label: numbers are rounded down, but those with the largest
    remainders are rounded up.
    """
    joint = confident_joint(labels, probabilities)
    support = np.bincount(labels, minlength=len(joint))
    exact = joint * (support / np.maximum(joint.sum(axis=1), 1))[:, None]
    counts = np.floor(exact + ROUNDING).astype(np.int64)
    by_remainder = np.argsort(counts - exact, axis=1, kind="stable")
    for row, order, missing in zip(counts, by_remainder, support - counts.sum(axis=1), strict=True):
        row[order[:missing]] += 1
    return counts


def find_label_issues(
    labels: np.ndarray, probabilities: np.ndarray, *, prune: Prune = "noise_rate", rank: Rank = "self_confidence"
) -> list[LabelIssue]:
    """The texts whose labels are probably wrong, the most suspicious first; equal scores in the order of rows.

    labels (N,) of 0..C-1, probabilities (N, C), which must be out of sample. Raises ValueError if the shapes do not
    match, and for NaN.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or np.isnan(probabilities).any():
        shapes = f"labels {labels.shape}, probabilities {probabilities.shape}"
        raise ValueError(f"probabilities must have one row per label and no NaN, got {shapes}")
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    if not len(labels) or classes < 2:
        return []
    own = probabilities[rows, labels]  # (N,)
    others = np.where(np.arange(classes) == labels[:, None], -np.inf, probabilities)
    suggested, likeliest_other = others.argmax(axis=1), others.max(axis=1)
    suspected = _suspects(labels, probabilities, prune) & (likeliest_other > own)
    score = own if rank == "self_confidence" else (own - likeliest_other + 1) / 2
    found = rows[suspected][np.argsort(score[suspected], kind="stable")]
    return [LabelIssue(int(i), int(labels[i]), int(suggested[i]), float(score[i])) for i in found]


def _suspects(labels: np.ndarray, probabilities: np.ndarray, prune: Prune) -> np.ndarray:
    """(N,) bool: which texts the rule selects."""
    wrong = estimated_counts(labels, probabilities)
    np.fill_diagonal(wrong, 0)
    by_rate, by_class = np.zeros((2, len(labels)), dtype=bool)
    for given in np.flatnonzero(wrong.any(axis=1)):
        rows = np.flatnonzero(labels == given)
        p = probabilities[rows]  # (n, C)
        by_class[rows[np.argsort(p[:, given], kind="stable")[: wrong[given].sum()]]] = True
        for true in np.flatnonzero(wrong[given]):
            margin = p[:, true] - p[:, given]
            by_rate[rows[np.argsort(-margin, kind="stable")[: wrong[given, true]]]] = True
    return {"noise_rate": by_rate, "class": by_class, "both": by_rate & by_class}[prune]


def find_multilabel_issues(
    labels: np.ndarray, probabilities: np.ndarray, *, prune: Prune = "noise_rate", rank: Rank = "self_confidence"
) -> list[MultiLabelIssue]:
    """The labels of texts that are probably missing or wrong, the most suspicious first.

    labels (N, C) of 0 and 1, probabilities (N, C), out of sample. A text appears once for each suspicious label.
    Raises ValueError if the shapes do not match, and for NaN.
    """
    if labels.shape != probabilities.shape:
        raise ValueError(f"labels and probabilities must have one shape, got {labels.shape} and {probabilities.shape}")
    found: list[MultiLabelIssue] = []
    for label, (y, p) in enumerate(zip(labels.T, probabilities.T, strict=True)):
        issues = find_label_issues(y, np.stack([1 - p, p], axis=1), prune=prune, rank=rank)
        found += [MultiLabelIssue(issue.row, label, issue.given == 1, issue.score) for issue in issues]
    return sorted(found, key=lambda issue: issue.score)
