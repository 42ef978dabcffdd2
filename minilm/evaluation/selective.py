"""Selective classification: answer only if the confidence is high enough, and leave the other texts to a person.

An answer is given if its confidence, such as the probability of the most probable class, is at least a threshold. A
lower threshold answers more texts, but usually with more errors among them (El-Yaniv and Wiener 2010; for networks:
Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks"). For N texts and a threshold t:

    coverage(t) = |{i : p_i >= t}| / N
    accuracy(t) = fraction of right answers among these           also called precision; 1 - accuracy is the risk

The curve of accuracy against coverage shows how many texts can be answered with a required accuracy. Its right end is
the accuracy if every text is answered.

With several labels per text there is a curve for each label: the texts with p >= t are those that get the label, and an
answer is right if the text has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.errors import UserError


@dataclass(frozen=True)
class CoverageCurve:
    """Accuracy against coverage, with one point for each of the K <= N distinct confidences, from high to low."""

    threshold: np.ndarray  # (K,) decreasing
    coverage: np.ndarray  # (K,) increasing, up to 1
    accuracy: np.ndarray  # (K,)
    rows: int  # N

    def accuracy_at(self, coverage: float) -> float:
        """The accuracy if at least this fraction of texts (above 0, at most 1) is answered, the most confident ones."""
        return float(self.accuracy[np.searchsorted(self.coverage, coverage - 1e-12)])


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and its results on the data on which it was chosen."""

    threshold: float  # answers of at least this confidence are given
    precision: float  # fraction of these answers that are right
    coverage: float  # fraction of texts that are answered
    answered: int  # number of texts that are answered
    reached: bool  # whether the required precision was reached


def coverage_curve(confidence: np.ndarray, right: np.ndarray) -> CoverageCurve:
    """The curve of N answers: confidence (N,), right (N,) bool. Raises ValueError if there are no answers.

    Either all answers of equal confidence are given, or none.
    """
    if not len(confidence) or confidence.shape != right.shape:
        raise ValueError(f"confidence and right must have one shape (N,), N > 0, got {confidence.shape}, {right.shape}")
    order = np.argsort(-confidence, kind="stable")
    p = confidence[order].astype(np.float64)
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))  # (K,) the last answer of each confidence
    answered = last + 1
    return CoverageCurve(p[last], answered / len(p), np.cumsum(right[order])[last] / answered, len(p))


def threshold_for_precision(confidence: np.ndarray, right: np.ndarray, precision: float) -> OperatingPoint:
    """The lowest confidence threshold at which this fraction of the answers is right, on validation data.

    confidence and right are as for ``coverage_curve``. If no threshold reaches the precision, the result is the
    threshold with the highest precision, the lowest of several, with ``reached`` False. A few answers of a small
    validation set prove little: check ``answered``, and ``statistics.wilson_interval``. Raises UserError if the
    precision is not above 0 and at most 1.
    """
    if not 0 < precision <= 1:
        raise UserError(f"the required precision must be a number above 0 and at most 1, got {precision}")
    curve = coverage_curve(confidence, right)
    reached = np.flatnonzero(curve.accuracy >= precision - 1e-12)  # tolerance for rounding, as in 19/20
    best = np.flatnonzero(curve.accuracy == curve.accuracy.max())
    k = int((reached if len(reached) else best)[-1])
    return OperatingPoint(
        threshold=float(curve.threshold[k]),
        precision=float(curve.accuracy[k]),
        coverage=float(curve.coverage[k]),
        answered=round(curve.coverage[k] * curve.rows),
        reached=len(reached) > 0,
    )
