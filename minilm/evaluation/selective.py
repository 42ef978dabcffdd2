"""Selective classification: to answer only if sure, and to leave the rest to a person.

An answer is given if its confidence, such as the likeliest class's probability, is at least a threshold. A lower
threshold answers more texts, and usually more of these wrongly (El-Yaniv and Wiener 2010; for networks: Geifman and
El-Yaniv 2017, "Selective Classification for Deep Neural Networks"). At a threshold t, of N texts:

    coverage(t) = |{i : p_i >= t}| / N
    accuracy(t) = fraction of right answers among these           also called precision; 1 - accuracy is the risk

The curve of accuracy against coverage shows what a wished accuracy costs. Its right end is the accuracy of answering
every text.

With several labels per text there is a curve for each label: the texts with p >= t are those that get the label, and an
answer is right if the text has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilm.errors import UserError


@dataclass(frozen=True)
class CoverageCurve:
    """Accuracy against coverage, from the surest answers to all: one point for each confidence that occurs, K <= N."""

    threshold: np.ndarray  # (K,) falling
    coverage: np.ndarray  # (K,) rising, up to 1
    accuracy: np.ndarray  # (K,)
    rows: int  # N

    def accuracy_at(self, coverage: float) -> float:
        """The accuracy if at least this fraction of texts (above 0, at most 1) is answered, the surest of them."""
        return float(self.accuracy[np.searchsorted(self.coverage, coverage - 1e-12)])


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it did on the data that it was chosen by."""

    threshold: float  # answers of at least this confidence are given
    precision: float  # fraction of these that is right
    coverage: float  # fraction of texts that is answered
    answered: int  # how many that are
    reached: bool  # whether the precision is the one that was wished for


def coverage_curve(confidence: np.ndarray, right: np.ndarray) -> CoverageCurve:
    """The curve of N answers: confidence (N,), right (N,) of booleans. Raises ValueError without an answer.

    Answers of equal confidence are given together or not at all.
    """
    if not len(confidence) or confidence.shape != right.shape:
        raise ValueError(f"one answer or more: confidence {confidence.shape}, right {right.shape}")
    order = np.argsort(-confidence, kind="stable")
    p = confidence[order].astype(np.float64)
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))  # of those of equal confidence, (K,)
    answered = last + 1
    return CoverageCurve(p[last], answered / len(p), np.cumsum(right[order])[last] / answered, len(p))


def threshold_for_precision(confidence: np.ndarray, right: np.ndarray, precision: float) -> OperatingPoint:
    """The lowest confidence threshold at which so large a fraction of the answers is right, on validation.

    confidence and right as for ``coverage_curve``. If no threshold reaches the precision, the point with the highest
    that there is, the one with most answers if there are several, with ``reached`` False. The surest answers of a small
    validation set prove little: see ``answered``, and ``statistics.wilson_interval``. Raises UserError for a precision
    that is not above 0 and at most 1.
    """
    if not 0 < precision <= 1:
        raise UserError(f"the wished precision must be a number above 0 and at most 1, got {precision}")
    curve = coverage_curve(confidence, right)
    reached = np.flatnonzero(curve.accuracy >= precision - 1e-12)  # 0.95 as a fraction of 20 rounds
    best = np.flatnonzero(curve.accuracy == curve.accuracy.max())
    k = int((reached if len(reached) else best)[-1])
    return OperatingPoint(
        threshold=float(curve.threshold[k]),
        precision=float(curve.accuracy[k]),
        coverage=float(curve.coverage[k]),
        answered=round(curve.coverage[k] * curve.rows),
        reached=len(reached) > 0,
    )
