"""Labels that are probably wrong, by confident learning (Northcutt et al. 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels").

Given are the labels of N texts, some of them wrong, and for each text the probabilities of a classifier that was not
trained on it (out of sample: from the other folds, or a test split). A classifier's probabilities may be too sure or
too unsure, for some classes more than for others. So "sure" is measured by class: t_j is the mean probability of class
j over the texts that are labelled j. A text counts as truly of class j if p_j is at least t_j; of several such classes,
the likeliest. This gives the *confident joint*:

    C[i, j] = |{texts labelled i that count as truly j}|

Texts that are not surely of any class are in no cell. Scaled so that each row has as many texts as that label has, it
estimates how many texts there are of each given and each true label (section 4.1):

    Q[i, j] = n_i C[i, j] / sum_j C[i, j]                           n_i texts are labelled i

Off the diagonal, Q estimates how many labels are wrong, but not which. One of these rules names them (section 4.2):

    noise rate   for each i and j: of the texts labelled i, the Q[i, j] with the largest p_j - p_i
    class        for each i: of the texts labelled i, the sum_{j != i} Q[i, j] with the smallest p_i
    both         the texts that both rules name

A text whose given label is the likeliest is not named. The suspects are then sorted, the most suspicious first, by

    self-confidence      p_i                                        how little speaks for the given label
    normalised margin    (p_i - max_{j != i} p_j + 1) / 2           how much more for it than for another

With several labels per text, each is a question with two answers, "has it" and "has it not", and is searched alone.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Prune = Literal["noise_rate", "class", "both"]
Rank = Literal["self_confidence", "normalized_margin"]
ROUNDING = 1e-6  # a class whose probability is the same for all texts is not unsure because its mean is rounded


class LabelIssue(NamedTuple):
    """A text whose label is probably wrong."""

    row: int
    given: int  # its label
    suggested: int  # the likeliest other class
    score: float  # from 0; the lower, the more suspicious


class MultiLabelIssue(NamedTuple):
    """A text that probably lacks a label that it should have, or has one that it should not have."""

    row: int
    label: int
    given: bool  # whether the text has the label; the suggestion is the opposite
    score: float  # from 0; the lower, the more suspicious


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """C: (C, C) counts, row = given label, column = true class. labels (N,), probabilities (N, C)."""
    classes = probabilities.shape[1]
    support = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]  # (N,) of the given label
    mean = np.bincount(labels, weights=own, minlength=classes) / np.maximum(support, 1)  # t, (C,)
    sure = (probabilities >= mean - ROUNDING) & (support > 0)  # a class without a text has no t
    true = np.where(sure, probabilities, -1.0).argmax(axis=1)
    known = sure.any(axis=1)
    cells = labels[known] * classes + true[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def estimated_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Q: (C, C) estimated numbers of texts, row = given label, column = true class, rounded to whole texts.

    Each row adds up to its label's texts: all numbers are rounded down, and then those with the largest remainders up.
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
    """The texts whose labels are probably wrong, the most suspicious first; of equals, the first row.

    labels (N,) of 0..C-1, probabilities (N, C), which must be out of sample. Raises ValueError if the shapes do not
    fit, and for NaN.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or np.isnan(probabilities).any():
        shapes = f"labels {labels.shape}, probabilities {probabilities.shape}"
        raise ValueError(f"every label needs a row of probabilities, all of them numbers: {shapes}")
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
    """(N,) booleans: which texts are named by the method."""
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
    """The labels that texts probably lack or have wrongly, the most suspicious first.

    labels (N, C) of 0 and 1, probabilities (N, C), out of sample. A text is named once for each of its labels that is
    suspicious. Raises ValueError if the shapes do not fit, and for NaN.
    """
    if labels.shape != probabilities.shape:
        raise ValueError(f"every label needs a probability: labels {labels.shape}, probabilities {probabilities.shape}")
    found: list[MultiLabelIssue] = []
    for label, (y, p) in enumerate(zip(labels.T, probabilities.T, strict=True)):
        issues = find_label_issues(y, np.stack([1 - p, p], axis=1), prune=prune, rank=rank)
        found += [MultiLabelIssue(issue.row, label, issue.given == 1, issue.score) for issue in issues]
    return sorted(found, key=lambda issue: issue.score)
