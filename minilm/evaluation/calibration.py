"""Calibration: whether answers that are given with probability 0.9 are right nine times in ten.

A classifier can be accurate and yet sound surer than it is; modern networks usually do (Guo et al. 2017, "On
Calibration of Modern Neural Networks"). Every answer has a confidence p and is right or wrong. With one label per text,
a text is one answer: the likeliest class, and p its probability. With several labels, every label of every text is an
answer: "it applies", and p is the label's probability.

**Reliability.** The N answers, sorted by confidence, are cut into M bins of equally many. A calibrated classifier has
acc = conf in each. The expected calibration error is the mean gap between the two:

    conf_m = mean confidence in bin m        acc_m = fraction of right answers in bin m

    ECE = sum_m  N_m / N  |acc_m - conf_m|

Guo et al. cut the range of p into bins of equal width. Most answers are then in the last one or two; bins of equal mass
(Nguyen and O'Connor 2015) look most closely at the confidences that occur most.

**The Brier score** (Brier 1950) is the squared distance between the probabilities and the truth y (0 or 1). Unlike the
ECE, it also rewards a classifier that separates right from wrong answers, and it needs no bins:

    one label      mean over texts of  sum_c (p_c - y_c)^2           from 0 to 2
    several        mean over texts and labels of (p - y)^2           from 0 to 1

**Temperature scaling** (Guo et al., section 4.2) divides the logits by one number T > 0, fitted on validation data to
the least log loss. With several labels per text, each label has its own:

    p = softmax(z / T)               p = sigmoid(z / T)

T > 1 makes a model less sure, T < 1 surer. With one label the likeliest class stays the likeliest, so the accuracy does
not change. The log loss is convex in b = 1/T: its derivative only rises with b, so halving the interval around its zero
finds the minimum,

    dL/db = mean over texts of  (sum_c p_c z_c) - z_y               p = softmax(b z), y the true class
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minilm.evaluation.metrics import log_softmax, sigmoid

BINS = 15  # M, as in Guo et al.
LEAST, MOST = 0.01, 100.0  # the range of temperatures

# --- Reliability ---


@dataclass(frozen=True)
class Reliability:
    """The data of a reliability picture: M bins by rising confidence. Bins without an answer are left out."""

    confidence: np.ndarray  # (M,) mean confidence of the bin's answers
    accuracy: np.ndarray  # (M,) fraction of them that is right
    count: np.ndarray  # (M,) how many there are

    @property
    def error(self) -> float:
        """The expected calibration error: 0 at best. A few hundred answers or less make it too large by chance."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(self.count @ gaps / self.count.sum())


def answers(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and rightness of every answer, flat.

    labels (N,) of 0..C-1 with probabilities (N, C): N answers. labels (N, C) of 0 and 1: N * C answers.
    """
    if labels.ndim == 2:
        return probabilities.ravel(), labels.ravel() == 1
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of equal mass over N answers, (N,) each. Raises ValueError without an answer.

    Answers of equal confidence share a bin, so that their order does not matter; the bins' masses then differ more.
    """
    if not len(confidence) or confidence.shape != right.shape:
        raise ValueError(f"one answer or more: confidence {confidence.shape}, right {right.shape}")
    order = np.argsort(confidence, kind="stable")
    p = confidence[order].astype(np.float64)
    rank = np.searchsorted(p, p)  # (N,) how many are less sure
    _, bin_of, count = np.unique(rank * bins // len(p), return_inverse=True, return_counts=True)
    return Reliability(
        confidence=np.bincount(bin_of, weights=p) / count,
        accuracy=np.bincount(bin_of, weights=right[order]) / count,
        count=count,
    )


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error. labels (N,), or (N, C) of 0 and 1; probabilities (N, C)."""
    return reliability(*answers(labels, probabilities), bins).error


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The Brier score. labels (N,), or (N, C) of 0 and 1; probabilities (N, C). With two classes and one label per
    text it is twice the score of the second class alone, which scikit-learn gives."""
    if labels.ndim == 2:
        return float(np.square(probabilities - labels).mean())
    distance = probabilities - (labels[:, None] == np.arange(probabilities.shape[1]))
    return float(np.square(distance).sum(axis=1).mean())


# --- Temperature ---


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The temperature with the least log loss: (1,), or with several labels per text (C,), one each.

    For validation labels (N,), or (N, C) of 0 and 1, and logits (N, C). ``logits / temperature`` applies it. It lies
    between 0.01 and 100. It is 1 if it would change nothing: one class, or equal logits. If all N answers are right,
    the log loss has no minimum, and the mean confidence becomes (N + 1) / (N + 2). Raises ValueError without a text.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or not len(logits) or len(labels) != len(logits):
        raise ValueError(f"one text or more: labels {labels.shape}, logits {logits.shape}")
    if labels.ndim == 1:
        return np.array([_temperature(labels, logits)])
    # A sigmoid is a softmax over two classes, of which the first has the logit 0.
    as_two_classes = (np.stack([np.zeros(len(z)), z], axis=1) for z in logits.T)
    return np.array([_temperature(y, z) for y, z in zip(labels.T, as_two_classes, strict=True)])


def _temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature of N texts with one label each.

    If every answer is right, the log loss has no minimum: it falls as long as the temperature does. But N right answers
    do not show that the next one is right as well. Laplace's rule of succession gives it the probability
    (N + 1) / (N + 2), and so much confidence, on average, the temperature leaves.
    """
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    behind = logits - true  # (N, C): 0 for the true class, above 0 for a class that beats it
    if not behind.any():
        return 1.0
    if behind.max() <= 0:
        wanted = (len(labels) + 1) / (len(labels) + 2)
        return 1 / _zero_of(lambda b: float((1 / np.exp(b * behind).sum(axis=1)).mean()) - wanted)
    return 1 / _zero_of(lambda b: float((np.exp(log_softmax(b * behind)) * behind).sum(axis=1).mean()))


def _zero_of(rising: Callable[[float], float]) -> float:
    """The zero of a function of b = 1/T that only rises; without one in the range, the end that is nearest to it."""
    low, high = 1 / MOST, 1 / LEAST
    if rising(low) >= 0:
        return low
    if rising(high) <= 0:
        return high
    while high > low * (1 + 1e-12):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low * high) ** 0.5


def scale_probabilities(probabilities: np.ndarray, temperature: np.ndarray, multi_label: bool) -> np.ndarray:
    """Probabilities (N, C) as they are with the temperature, (1,) or (C,), if the logits are not at hand.

    A softmax does not notice if all logits of a text are moved by one number, so log p is as good as the logits.
    """
    with np.errstate(divide="ignore"):  # log 0 is minus infinity, and that probability stays 0
        scores = np.log(probabilities) - (np.log1p(-probabilities) if multi_label else 0.0)
    return sigmoid(scores / temperature) if multi_label else np.exp(log_softmax(scores / temperature))
