"""Calibration: whether answers with a probability of 0.9 are right nine times in ten.

A classifier can be accurate and still be overconfident, as modern networks usually are (Guo et al. 2017, "On
Calibration of Modern Neural Networks"). Every answer has a confidence p and is right or wrong. With one label per text,
each text has one answer: the most probable class, and p is its probability. With several labels, every label of every
text is an answer, "the label applies", and p is the label's probability.

**Reliability.** The N answers, sorted by confidence, are divided into M bins of equal size. A calibrated classifier has
acc = conf in each bin. The expected calibration error is the mean difference between the two:

    conf_m = mean confidence in bin m        acc_m = fraction of right answers in bin m

    ECE = sum_m  N_m / N  |acc_m - conf_m|

Guo et al. use bins of equal width. Most answers are then in the last one or two bins. Bins of equal mass (Nguyen and
O'Connor 2015) have the highest resolution at the most frequent confidences.

**The Brier score** (Brier 1950) is the squared distance between the probabilities and the truth y (0 or 1). Unlike the
ECE, it also rewards a classifier that separates right from wrong answers, and it needs no bins:

    one label      mean over texts of  sum_c (p_c - y_c)^2           from 0 to 2
    several        mean over texts and labels of (p - y)^2           from 0 to 1

**Temperature scaling** (Guo et al., section 4.2) divides the logits by one number T > 0, fitted on validation data to
the least log loss. With several labels per text, each label has its own:

    p = softmax(z / T)               p = sigmoid(z / T)

T > 1 makes a model less confident, T < 1 more confident. With one label the order of the classes does not change, and
so the accuracy does not either. The log loss is convex in b = 1/T: its derivative increases with b, so bisection finds
its zero, which is the minimum of the loss,

    dL/db = mean over texts of  (sum_c p_c z_c) - z_y               p = softmax(b z), y the true class

**How sure it is.** The second derivative of N L is the information about b, so that log T has the standard error

    1 / sqrt(sum over texts of  sum_c p_c (u_c - mean u)^2)         u = z / T, mean u = sum_c p_c u_c

An answer of two classes adds 0.15 to the sum if its probability is 0.7, and 0.43 if it is 0.9. So six texts leave T
open by a factor of two to three, and 30 texts by 1.3 to 1.6. With fewer than 30, T is taken as 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minilm.evaluation.metrics import log_softmax, sigmoid

BINS = 15  # M, as in Guo et al.
FEWEST = 30  # texts that a temperature is fitted on
LEAST, MOST = 0.01, 100.0  # the range of temperatures

# --- Reliability ---


@dataclass(frozen=True)
class Reliability:
    """The data of a reliability diagram: M bins in order of confidence, without empty bins."""

    confidence: np.ndarray  # (M,) mean confidence of the bin's answers
    accuracy: np.ndarray  # (M,) fraction of the bin's answers that are right
    count: np.ndarray  # (M,) number of answers in the bin

    @property
    def error(self) -> float:
        """The expected calibration error; 0 is best. With a few hundred answers or fewer, it is too large by chance."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(self.count @ gaps / self.count.sum())


def answers(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of every answer, and whether it is right, as flat arrays.

    labels (N,) of 0..C-1 with probabilities (N, C): N answers. labels (N, C) of 0 and 1: N * C answers.
    """
    if labels.ndim == 2:
        return probabilities.ravel(), labels.ravel() == 1
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Divide N answers, (N,) each, into bins of equal mass. Raises ValueError if there are no answers.

    Answers of equal confidence are in one bin, so that their order does not matter; the bins may then differ in mass.
    """
    if not len(confidence) or confidence.shape != right.shape:
        raise ValueError(f"confidence and right must have one shape (N,), N > 0, got {confidence.shape}, {right.shape}")
    order = np.argsort(confidence, kind="stable")
    p = confidence[order].astype(np.float64)
    rank = np.searchsorted(p, p)  # (N,) the number of answers of lower confidence
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
    text it is twice the score that scikit-learn computes, which counts only the second class."""
    if labels.ndim == 2:
        return float(np.square(probabilities - labels).mean())
    distance = probabilities - (labels[:, None] == np.arange(probabilities.shape[1]))
    return float(np.square(distance).sum(axis=1).mean())


# --- Temperature ---


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """The temperature with the lowest log loss: (1,), or with several labels per text (C,), one per label.

    labels: (N,), or (N, C) of 0 and 1, of validation texts; logits: (N, C). ``logits / temperature`` applies the
    temperature. It is between 0.01 and 100. It is 1 if it would change nothing: one class, or equal logits. If all N
    answers are right, the log loss has no minimum, and the temperature makes the mean confidence (N + 1) / (N + 2).
    Raises ValueError if there are no texts.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or not len(logits) or len(labels) != len(logits):
        raise ValueError(f"labels and logits must be of the same N > 0 texts, got {labels.shape} and {logits.shape}")
    if labels.ndim == 1:
        return np.array([_temperature(labels, logits)])
    # A sigmoid equals a softmax over two classes whose first logit is 0.
    as_two_classes = (np.stack([np.zeros(len(z)), z], axis=1) for z in logits.T)
    return np.array([_temperature(y, z) for y, z in zip(labels.T, as_two_classes, strict=True)])


def _temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature of N texts with one label each.

    If every answer is right, the log loss has no minimum: it falls as the temperature falls. But N right answers do not
    prove that the next one is right too. Laplace's rule of succession gives it the probability (N + 1) / (N + 2), and
    the temperature is chosen so that the mean confidence has this value.
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
    """The zero of an increasing function of b = 1/T, or the nearest end of the range if there is none inside."""
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
    """Apply a temperature, (1,) or (C,), to probabilities (N, C), without the logits.

    A softmax does not change if a constant is added to all logits of a text, so log p can replace the logits.
    """
    with np.errstate(divide="ignore"):  # log 0 is minus infinity, and the probability stays 0
        scores = np.log(probabilities) - (np.log1p(-probabilities) if multi_label else 0.0)
    return sigmoid(scores / temperature) if multi_label else np.exp(log_softmax(scores / temperature))
