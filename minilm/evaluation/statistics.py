"""Intervals and tests for results over seeds, over folds and over test rows, and for two runs on the same rows.

Over n seeds, with mean m and standard deviation s = sqrt(sum (x - m)^2 / (n - 1)):

    95% interval    m +- t s / sqrt(n)          t: Student's with n - 1 degrees of freedom ("Student" 1908)
    bounded         if the interval leaves the range of the metric: the interval of logit(x), or of log x if there is
                    no upper bound, transformed back, which stays inside the range
    paired t        t = m_d sqrt(n) / s_d       of the differences d of two methods over the same seeds
    permutation     the fraction of the 2^n ways to swap the two methods within pairs whose |mean| is at least |m_d|
                    (Fisher 1935, The Design of Experiments, section 21); it assumes nothing about the distribution

Over k folds, each evaluated by a model trained on the other folds, so that any two models share most of their training
texts (Nadeau and Bengio 2003, "Inference for the Generalization Error"):

    95% interval    m +- t s sqrt(1 / k + 1 / (k - 1))      1 / (k - 1): rows of a fold / rows that are trained on

The distribution of t with a whole number k of degrees of freedom is a finite sum (Abramowitz and Stegun 26.7.3 and
26.7.4): with theta = atan(t / sqrt(k)), the probability P(|T| <= t) is

    k odd     2 / pi (theta + sin theta (cos theta + 2/3 cos^3 theta + ... up to cos^(k-2) theta))
    k even    sin theta (1 + 1/2 cos^2 theta + 1 3 / (2 4) cos^4 theta + ... up to cos^(k-2) theta)

Over the n rows of one test set: the bootstrap (Efron 1979), which draws n rows with replacement. For a fraction p of n
rows, Wilson's interval (1927), which is also valid if no rows or all rows are right; with z = 1.96 it is

    (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

For two runs, McNemar's exact test (McNemar 1947) of the rows that only one of them has right. For several comparisons
at once, Holm's correction (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # the confidence level of every interval
ALPHA = 0.05  # a p value below this is called significant
ENOUGH_PAIRS = 5  # with fewer pairs, a t test alone is not called significant
UNBOUNDED = (-math.inf, math.inf)


class Interval(NamedTuple):
    """A 95% confidence interval: in 95 of 100 such studies it contains the true value."""

    low: float
    high: float


class BoundedInterval(NamedTuple):
    """An interval of a mean that stays inside the range of its values, and how it was computed."""

    interval: Interval
    method: str = ""  # empty: Student's t; else "on the logit scale", "on the log scale" or "cut at the range's end"


class Paired(NamedTuple):
    """A comparison of two methods over the same seeds."""

    difference: float  # mean of the second minus the first
    interval: Interval | None  # of that difference; None if all pairs differ by the same amount
    t_test: float  # p value of the paired t test; if all pairs differ by the same amount, of the permutation test
    permutation: float  # p value of the permutation test
    pairs: int
    method: str = ""  # of the interval, as in BoundedInterval


ALL_SWAPS = 13  # up to this number of pairs, all swaps are computed; with more, SWAPS random ones
SWAPS = 10_000
DRAWS = 2_000  # samples of the bootstrap
NO_SPREAD = 1e-9  # values that differ by less than this fraction of the largest value count as equal

# --- Over seeds ---


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample: n - 1 in the denominator. Needs at least 2 values."""
    middle = mean(values)
    return math.sqrt(math.fsum((x - middle) ** 2 for x in values) / (len(values) - 1))


def t_interval(values: Sequence[float]) -> Interval | None:
    """The 95% interval of the mean by Student's t; None for fewer than two values, and if all values are equal.

    Equal values prove nothing (two seeds may both reach 0.9 by chance), but they have no spread to compute from.
    """
    if len(values) < 2 or (spread := deviation(values)) <= NO_SPREAD * max(map(abs, values)):
        return None
    half = t_quantile(LEVEL, len(values) - 1) * spread / math.sqrt(len(values))
    return Interval(mean(values) - half, mean(values) + half)


def folds_interval(values: Sequence[float]) -> Interval | None:
    """The 95% interval of the mean over k folds, corrected for their dependence; None as for ``t_interval``."""
    interval, k = t_interval(values), len(values)
    if interval is None:
        return None
    half = (interval.high - mean(values)) * math.sqrt(1 + k / (k - 1))  # s / sqrt(k) becomes s sqrt(1/k + 1/(k - 1))
    return Interval(mean(values) - half, mean(values) + half)


def bounded_t_interval(values: Sequence[float], bounds: tuple[float, float]) -> BoundedInterval | None:
    """The 95% interval of the mean, inside the ``bounds`` of the values; None as in ``t_interval``.

    It is Student's interval if that is inside. Otherwise it is Student's interval of the logits of the values, or of
    their logarithms if there is no upper bound, transformed back. For metrics near a bound, whose distribution is
    skewed, this is also the better interval. A value at a bound has no logit; then Student's interval is cut there.
    """
    plain, (low, high) = t_interval(values), bounds
    if plain is None or (low <= plain.low and plain.high <= high):
        return None if plain is None else BoundedInterval(plain)
    if not all(low < x < high for x in values) or low == -math.inf:
        return BoundedInterval(Interval(max(low, plain.low), min(high, plain.high)), "cut at the range's end")
    if high == math.inf:
        logs = t_interval([math.log(x - low) for x in values])
        assert logs is not None  # the values differ
        return BoundedInterval(Interval(*(low + math.exp(min(end, 700.0)) for end in logs)), "on the log scale")
    logits = t_interval([math.log((x - low) / (high - x)) for x in values])
    assert logits is not None
    ends = (low + (high - low) / (1 + math.exp(min(-end, 700.0))) for end in logits)
    return BoundedInterval(Interval(*ends), "on the logit scale")


def paired(
    first: Sequence[float], second: Sequence[float], bounds: tuple[float, float] = UNBOUNDED
) -> Paired:
    """Whether ``second`` differs from ``first``, whose values are of the same seeds. Needs at least 2 pairs.

    If all pairs differ by the same amount, Student's t is undefined, as there is no spread. Then the permutation test
    replaces it, and there is no interval. ``bounds``: the range of a difference, which the interval does not leave.
    """
    least = NO_SPREAD * max(map(abs, (*first, *second)))  # smaller differences are rounding errors
    differences = [d if abs(d := b - a) > least else 0.0 for a, b in zip(first, second, strict=True)]
    n, middle, spread = len(differences), mean(differences), deviation(differences)
    swapped = permutation_test(differences)
    if spread <= least:
        return Paired(middle, None, swapped, swapped, n)
    t = abs(middle) * math.sqrt(n) / spread
    found = bounded_t_interval(differences, bounds)
    interval, method = found if found else (None, "")
    return Paired(middle, interval, 1 - t_probability(t, n - 1), swapped, n, method)


def is_significant(pair: Paired, p: float) -> bool:
    """Whether a difference with this (corrected) p value may be called significant.

    Student's t assumes a normal distribution, which two to four pairs cannot confirm. So with fewer than five pairs a
    t test counts only if the permutation test agrees, which cannot reach 5% with so few pairs.
    """
    return p < ALPHA and (pair.pairs >= ENOUGH_PAIRS or pair.permutation < ALPHA)


def least_permutation(pairs: int) -> float:
    """The lowest p value that ``permutation_test`` can give: 0.25 with three pairs, 0.03 with six."""
    return 2 / 2**pairs if pairs <= ALL_SWAPS else 1 / (SWAPS + 1)


def permutation_test(differences: Sequence[float]) -> float:
    """The p value of a mean difference under swaps within pairs: all 2^n swaps up to 13 pairs, random ones beyond."""
    values, n = np.asarray(differences, dtype=float), len(differences)
    if n <= ALL_SWAPS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # (2^n, n) of 1 and -1
    else:
        drawn = np.random.default_rng(0).choice([-1, 1], size=(SWAPS, n))
        signs = np.vstack([np.ones(n, dtype=int), drawn])  # the observed assignment is one of them
    means = np.abs(signs @ values)
    return float((means >= abs(values.sum()) - 1e-12 * np.abs(values).sum()).mean())


def t_probability(t: float, k: int) -> float:
    """P(|T| <= t) for Student's T with k degrees of freedom, a whole number of at least 1."""
    theta = math.atan(t / math.sqrt(k))
    squared, term, total = math.cos(theta) ** 2, 1.0, 0.0
    if k % 2:
        term = math.cos(theta)
    for power in range(k % 2, k - 1, 2):
        total += term
        term *= squared * (power + 1) / (power + 2)
    return 2 / math.pi * (theta + math.sin(theta) * total) if k % 2 else math.sin(theta) * total


def t_quantile(probability: float, k: int) -> float:
    """The t with P(|T| <= t) = probability (below 1), by bisection."""
    low, high = 0.0, 1.0
    while t_probability(high, k) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, k) < probability else (low, middle)
    return high


# --- Over test rows ---


def wilson_interval(share: float, rows: int) -> Interval:
    """The 95% interval of a fraction of ``rows`` rows, such as an accuracy. Needs at least 1 row."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, scale = share + z * z / (2 * rows), 1 + z * z / rows
    half = z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def bootstrap_interval(metric: Callable[[np.ndarray], float], rows: int) -> Interval | None:
    """The 95% percentile interval of a metric over test rows; ``metric`` gets the numbers of the rows drawn (rows,).

    None if the interval has no width, as if all rows are right. The bootstrap then cannot show how uncertain the metric
    is, and one value for both ends would look like certainty.
    """
    rng = np.random.default_rng(0)
    return _percentiles([metric(rng.integers(rows, size=rows)) for _ in range(DRAWS)])


def confusion_interval(metric: Callable[[np.ndarray], float], confusion: Sequence[Sequence[int]]) -> Interval | None:
    """``bootstrap_interval`` for a metric of the confusion matrix (C, C). It draws cells, as rows of a cell are
    equal."""
    counts = np.asarray(confusion)
    drawn = np.random.default_rng(0).multinomial(counts.sum(), counts.ravel() / counts.sum(), size=DRAWS)
    return _percentiles([metric(matrix.reshape(counts.shape)) for matrix in drawn])


def _percentiles(values: list[float]) -> Interval | None:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if high - low <= NO_SPREAD * max(abs(low), abs(high)):
        return None
    return Interval(float(low), float(high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The p value of the hypothesis that two runs are right equally often. (N,) bool: which rows each run has right.

    The test is exact: if the hypothesis holds, each of the b + c rows that only one run has right is a fair coin toss.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    ways, total = 1, 0  # ways: the binomial coefficient (tosses, i)
    for i in range(fewer + 1):
        total += ways
        ways = ways * (tosses - i) // (i + 1)
    return min(1.0, 2 * total / 2**tosses)  # exact: Python integers cannot overflow


# --- Many comparisons ---


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, corrected so that the probability of at least one false positive among them is below the level."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected
