"""Metrics of classification in plain numpy, with one label per text or several.

For class c, from the confusion matrix M (row = truth t, column = prediction p):

    TP_c = M_cc          predicted p_c = sum_t M_tc          support t_c = sum_p M_cp
    precision_c = TP_c / p_c      recall_c = TP_c / t_c      F1_c = 2 TP_c / (p_c + t_c)

0/0 counts as 0. A *macro* average is the mean over classes, so that a rare class weighs as much as a common
one; with one label per text it ignores classes that are neither true nor predicted for any text, as their values are
not defined. A *micro* average adds up TP, p and t over the labels first.

Matthews' correlation is 1 at best and 0 for guessing, even if the classes are unbalanced; its minimum is -1 with two
classes, and between -1 and 0 with more. For many classes it is R_K (Gorodkin 2004, "Comparing two K-category
assignments by a K-category correlation coefficient"), with s texts, c of them right:

    MCC = (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)),    0 if a factor is 0

Losses, in nats, the mean over texts (several labels: over all cells), from logits z:

    cross-entropy  -log softmax(z)_y                binary cross-entropy  log(1 + e^z) - y z

They use no class weights and no label smoothing, so that runs trained with and without these can be compared.

Several labels per text, T the true and P the predicted set, P = {c : sigmoid(z_c) >= threshold}:

    Jaccard = mean |T ∩ P| / |T ∪ P|
    subset accuracy = fraction of texts with T = P        label accuracy = fraction of cells that are right

If T and P are both empty, the text counts as right: its Jaccard index is 1 (the convention of SemEval-2018
task 1, E-c).

The area under the ROC curve and the average precision need no threshold: see ``ranking.py``.

All values are Python floats, ints and lists, ready for JSON. They equal scikit-learn's with zero_division=0, the
Jaccard index with average="samples" and zero_division=1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilm.config import Fraction
from minilm.errors import UserError, nearest
from minilm.evaluation.confusions import Confused, class_totals, most_confused
from minilm.evaluation.ranking import average_precision, roc_auc
from minilm.measures import (
    HIGHER_IS_BETTER,
    LANGUAGE_METRICS,
    METRICS,
    MULTI_LABEL_METRICS,
    RANKING_METRICS,
    SINGLE_LABEL_METRICS,
    Correlation,
    Measured,
    Number,
    Perplexity,
)

MATRIX = 100  # with more classes, the most confused pairs are kept instead of the confusion matrix
PAIRS = 100


@dataclass(frozen=True)
class LabelMetrics:
    """The metrics of one label."""

    precision: Fraction
    recall: Fraction
    f1: Fraction
    support: Number  # texts that have the label


@dataclass(frozen=True)
class Metrics:
    """The metrics on one split. A metric that the task does not have is None.

    ``metrics["macro_f1"]`` and ``metrics.get("macro_f1")`` return the metric of that name. For a metric that the task
    does not have, the former raises KeyError and the latter returns None.
    """

    loss: Measured
    perplexity: Perplexity | None = None  # of a language model
    # With one label per text.
    accuracy: Fraction | None = None
    macro_precision: Fraction | None = None
    macro_recall: Fraction | None = None
    # With several labels per text.
    subset_accuracy: Fraction | None = None
    label_accuracy: Fraction | None = None
    jaccard: Fraction | None = None
    micro_f1: Fraction | None = None
    # In both cases.
    macro_f1: Fraction | None = None
    mcc: Correlation | None = None
    roc_auc: Fraction | None = None  # None also if it is undefined, or if there are very many labels
    average_precision: Fraction | None = None
    # Details for C labels; None in the brief form.
    per_class: list[LabelMetrics] | None = None  # (C,) with one label per text
    confusion: list[list[int]] | None = None  # (C, C) counts of texts, row: truth, column: prediction
    confused: list[Confused] | None = None  # with many classes, instead of ``confusion``: the most confused pairs
    per_label: list[LabelMetrics] | None = None  # (C,) with several labels per text

    def __post_init__(self) -> None:
        """Raise ValueError unless these are the metrics of one kind of task."""
        measured = {name for name in METRICS if self.get(name) is not None}
        kinds = (SINGLE_LABEL_METRICS, MULTI_LABEL_METRICS, LANGUAGE_METRICS)
        if self.perplexity is None:
            measured -= set(RANKING_METRICS)
        if not any(measured == set(names) for names in kinds):
            raise ValueError("must contain " + ", or ".join(" ".join(names) for names in kinds))
        classes = len(self.per_class or ())
        if (self.per_class is not None) != ((self.confusion is None) != (self.confused is None)):
            raise ValueError("must contain either confusion or confused with per_class, and neither without it")
        if self.confusion is not None and not _is_square(self.confusion, classes):
            raise ValueError(f"confusion must be {classes} rows of {classes} whole numbers of texts")
        for pair in self.confused or ():
            if max(pair.truth, pair.predicted) >= classes:
                raise ValueError(f"confused must contain class numbers below {classes}")
            if pair.texts > self.by_label[pair.truth].support or not pair.texts:
                raise ValueError("confused must contain numbers of texts from 1 to the support of the true label")

    def __getitem__(self, name: str) -> float:
        if (value := self.get(name)) is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> float | None:
        """The metric of that name; None if the task does not have it, or if there is no such metric."""
        value: float | None = getattr(self, name) if name in METRICS else None
        return value

    @property
    def multi_label(self) -> bool:
        """Whether a text may have several labels."""
        return self.subset_accuracy is not None

    @property
    def by_label(self) -> list[LabelMetrics]:
        """The metrics of each label, (C,)."""
        return self.per_class or self.per_label or []

    def most_confused(self) -> list[Confused]:
        """The most confused pairs of labels, with one label per text."""
        if self.confused is not None:
            return self.confused
        cells = ((t, p, n) for t, row in enumerate(self.confusion or ()) for p, n in enumerate(row) if t != p and n)
        return sorted((Confused(*cell) for cell in cells), key=lambda pair: -pair.texts)

    def brief(self) -> Metrics:
        """Only the metrics that are single numbers."""
        return replace(self, per_class=None, confusion=None, confused=None, per_label=None)


def _is_square(matrix: list[list[int]], size: int) -> bool:
    """Whether the matrix contains counts (C, C), and at least one is not 0."""
    counts = [n for row in matrix for n in row]
    square = len(matrix) == size and all(len(row) == size for row in matrix)
    return not size or (square and min(counts) >= 0 and 0 < sum(counts) < 2**53)


def check_metric(metric: str, multi_label: bool, key: str = "train.best") -> None:
    """Raise `UserError` unless this kind of task has the metric; `key` is the setting that names it."""
    names = (*(MULTI_LABEL_METRICS if multi_label else SINGLE_LABEL_METRICS), *RANKING_METRICS)
    if metric not in names:
        kind = "several labels per text" if multi_label else "one label per text"
        there = ", ".join(names)
        raise UserError(f'{key}: no metric "{metric}" with {kind}{nearest(metric, names)}; the metrics are: {there}')


def is_better(metric: str, new: float, old: float | None, threshold: float = 0.0) -> bool:
    """Whether `new` is better than `old` by more than `threshold`; any number but NaN is better than None.

    Raises `UserError` for a metric that does not exist.
    """
    if metric not in HIGHER_IS_BETTER:
        names = ", ".join(HIGHER_IS_BETTER)
        raise UserError(f'unknown metric "{metric}"{nearest(metric, HIGHER_IS_BETTER)}; the metrics are: {names}')
    if old is None:
        return new == new  # only NaN differs from itself
    gain = new - old if HIGHER_IS_BETTER[metric] else old - new
    return gain > threshold


# --- from logits to probabilities ---


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64. The maximum is subtracted first, so that exp cannot overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-z), in float64. Computed as e^-log(1 + e^-z), which cannot overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def labels_above(logits: np.ndarray, threshold: float | np.ndarray = 0.5) -> np.ndarray:
    """Decide with several labels: (N, C), 1 if the probability is at least `threshold`, else 0.

    threshold: one number for all labels, or (C,), one per label (`thresholds.py`).
    """
    return (sigmoid(logits) >= threshold).astype(np.int64)


# --- one label per text ---


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts of texts, row = true class, column = predicted class."""
    pairs = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def classification_metrics(
    labels: np.ndarray, logits: np.ndarray, given: np.ndarray | None = None, *, ranking: bool = True
) -> Metrics:
    """Metrics with one label per text: labels (N,) of 0..C-1, logits (N, C).

    given: the predicted classes (N,); None: those with the highest logits, the first among equal ones. ranking: whether
    to compute ROC AUC and average precision, which sort all texts for each label.
    """
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    _check_shapes(labels, logits, labels.shape == logits.shape[:1])
    classes = logits.shape[1]
    given = logits.argmax(axis=1) if given is None else given
    few = classes <= MATRIX
    support, predicted, right = class_totals(labels, given, classes)
    precision, recall, f1 = _precision_recall_f1(right, predicted, support)
    seen = support + predicted > 0
    return Metrics(
        loss=float(-log_softmax(logits)[np.arange(len(labels)), labels].mean()),
        accuracy=float(right.sum() / len(labels)),
        macro_precision=float(precision[seen].mean()),
        macro_recall=float(recall[seen].mean()),
        macro_f1=float(f1[seen].mean()),
        mcc=_matthews_correlation(right, predicted, support),
        per_class=_by_label(precision, recall, f1, support),
        confusion=confusion_matrix(labels, given, classes).tolist() if few else None,
        confused=None if few else most_confused(labels, given, PAIRS),
        **(_ranking(labels, log_softmax(logits)) if ranking else {}),
    )


def _matthews_correlation(right: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> float:
    # Python integers, as s^4 overflows int64 with 55,000 texts or more.
    s, c, p, t = int(support.sum()), int(right.sum()), predicted.tolist(), support.tolist()
    covariance = c * s - sum(a * b for a, b in zip(p, t, strict=True))
    variances = (s * s - sum(a * a for a in p)) * (s * s - sum(b * b for b in t))
    return covariance / variances**0.5 if variances else 0.0


# --- several labels per text ---


def multilabel_metrics(
    labels: np.ndarray,
    logits: np.ndarray,
    threshold: float | np.ndarray = 0.5,
    given: np.ndarray | None = None,
    *,
    ranking: bool = True,
) -> Metrics:
    """Metrics with several labels per text: labels (N, C) of 0 and 1, logits (N, C). Macro F1 is over all C labels.

    given: the predicted labels (N, C) of 0 and 1; None: those whose probability is at least the threshold. ranking: as
    for ``classification_metrics``.
    """
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    _check_shapes(labels, logits, labels.shape == logits.shape)
    loss = float((np.logaddexp(0.0, logits) - labels * logits).mean())
    given = labels_above(logits, threshold) if given is None else given
    return Metrics(loss, **_metrics_of_choice(labels, given), **(_ranking(labels, logits) if ranking else {}))


def _metrics_of_choice(labels: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """All metrics but the loss, from true and chosen labels, (N, C) of 0 and 1 each."""
    both, either = (labels & chosen).sum(axis=1), (labels | chosen).sum(axis=1)  # (N,)
    right, predicted, support = (labels & chosen).sum(axis=0), chosen.sum(axis=0), labels.sum(axis=0)  # (C,)
    precision, recall, f1 = _precision_recall_f1(right, predicted, support)
    _, _, micro_f1 = _precision_recall_f1(right.sum(), predicted.sum(), support.sum())
    return {
        "subset_accuracy": float((labels == chosen).all(axis=1).mean()),
        "label_accuracy": float((labels == chosen).mean()),
        "jaccard": float(_ratio(both, either, empty=1.0).mean()),
        "micro_f1": float(micro_f1),
        "macro_f1": float(f1.mean()),
        "per_label": _by_label(precision, recall, f1, support),
    }


def choose_threshold(labels: np.ndarray, logits: np.ndarray, metric: str = "macro_f1") -> float:
    """The best threshold of 0.01, 0.02, ..., 0.99 by `metric`; among equally good ones, the nearest to 0.5.

    labels (N, C), logits (N, C): of validation texts. Choosing it on test texts would make their metrics too high.
    Raises `UserError` for a metric that does not exist with several labels.
    """
    check_metric(metric, multi_label=True, key="metric")
    labels, probabilities = np.asarray(labels), sigmoid(logits)  # computed once, as this runs after every epoch
    _check_shapes(labels, probabilities, labels.shape == probabilities.shape)
    if metric in ("loss", *RANKING_METRICS):  # does not depend on the threshold
        return 0.5
    best, best_value = 0.5, None
    for percent in sorted(range(1, 100), key=lambda percent: abs(percent - 50)):
        chosen = (probabilities >= percent / 100).astype(np.int64)
        value = _metrics_of_choice(labels, chosen)[metric]
        if is_better(metric, value, best_value):
            best, best_value = percent / 100, value
    return best


# --- shared ---


def _check_shapes(labels: np.ndarray, logits: np.ndarray, match: bool) -> None:
    if logits.ndim != 2 or not match or not logits.size:
        raise ValueError(f"labels and logits must be of the same N > 0 texts, got {labels.shape} and {logits.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")


def _ranking(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """The ranking metrics that are defined. scores (N, C) must be comparable between texts."""
    if np.isnan(scores).any():  # the model has diverged
        return {}
    found = {"roc_auc": roc_auc(labels, scores), "average_precision": average_precision(labels, scores)}
    return {name: value for name, value in found.items() if value == value}  # only NaN differs from itself


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """numerator / denominator, `empty` if the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), empty)


def _precision_recall_f1(
    right: np.ndarray, predicted: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _ratio(right, predicted), _ratio(right, support), _ratio(2 * right, predicted + support)


def _by_label(precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, support: np.ndarray) -> list[LabelMetrics]:
    rows = zip(precision.tolist(), recall.tolist(), f1.tolist(), support.tolist(), strict=True)
    return [LabelMetrics(*row) for row in rows]
