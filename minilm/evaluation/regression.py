"""Metrics of a model that gives a score, not a label: regression, cross-encoders, rerankers, reward models.

With N texts, their true values t and the model's scores s:

    mean squared error    mean (s - t)^2                  mean absolute error    mean |s - t|
    Pearson               cov(s, t) / (sd(s) sd(t))       linear correlation, at best 1
    Spearman              Pearson of the ranks            correlation of the order; ties have their mean rank

If all scores or all true values are equal, a correlation is undefined and reported as 0. The errors are useful only if
scores and values have the same scale; for a reranker only the order matters.

The numbers equal those of SciPy's pearsonr and spearmanr, and scikit-learn's mean_squared_error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoreMetrics:
    """Metrics of scores against true values."""

    texts: int
    pearson: float
    spearman: float
    mean_squared_error: float
    mean_absolute_error: float


def score_metrics(values: np.ndarray, scores: np.ndarray) -> ScoreMetrics:
    """The metrics of scores (N,) against true values (N,). Raises ValueError if N is 0, or if shapes differ."""
    t, s = np.asarray(values, np.float64), np.asarray(scores, np.float64)
    if t.ndim != 1 or t.shape != s.shape or not len(t):
        raise ValueError(f"values and scores must have one shape (N,), N > 0, got {t.shape} and {s.shape}")
    return ScoreMetrics(
        texts=len(t),
        pearson=_correlation(t, s),
        spearman=_correlation(_ranks(t), _ranks(s)),
        mean_squared_error=float(np.square(s - t).mean()),
        mean_absolute_error=float(np.abs(s - t).mean()),
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # their squares are then neither too large nor too small
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """(N,) ranks from 1; equal values have their mean rank."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[where]
    return ranks
