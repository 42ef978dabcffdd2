"""How sure a number is: intervals and tests for results over seeds, over test rows, and of two runs on the same rows.

Over n seeds, with mean m and standard deviation s = sqrt(sum (x - m)^2 / (n - 1)):

    95% interval    m +- t s / sqrt(n)          t: Student's with n - 1 degrees of freedom ("Student" 1908)
    bounded         if that leaves the range of a metric: the interval of logit(x), or of log x if there is no upper
                    end, transformed back, which stays inside
    paired t        t = m_d sqrt(n) / s_d       of the differences d of two methods over the same seeds
    permutation     the share of the 2^n ways to swap the two methods within pairs whose |mean| is at least |m_d|
                    (Fisher 1935, The Design of Experiments, section 21): assumes nothing about the distribution

Over k folds, each measured by a model that the other folds trained, so that any two models share most of their texts
(Nadeau and Bengio 2003, "Inference for the Generalization Error"):

    95% interval    m +- t s sqrt(1 / k + 1 / (k - 1))      1 / (k - 1): rows of a fold by rows that are trained on

The distribution of t with a whole number k of degrees of freedom is a finite sum (Abramowitz and Stegun 26.7.3 and
26.7.4): with theta = atan(t / sqrt(k)), the probability P(|T| <= t) is

    k odd     2 / pi (theta + sin theta (cos theta + 2/3 cos^3 theta + ... up to cos^(k-2) theta))
    k even    sin theta (1 + 1/2 cos^2 theta + 1 3 / (2 4) cos^4 theta + ... up to cos^(k-2) theta)

Over the rows of one test set: the bootstrap (Efron 1979), which draws as many rows again, with replacement; of a share
p of n rows, Wilson's interval (1927), which holds also if none or all are right, and with z = 1.96 is

    (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

and McNemar's exact test (McNemar 1947) of the rows that only one of two runs has right. Many comparisons at once: Holm
(1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # below it a p value is called significant
ENOUGH_PAIRS = 5  # of which a t test alone may be called significant: with fewer no permutation test can agree
UNBOUNDED = (-math.inf, math.inf)


class Interval(NamedTuple):
    """A range that holds the true value in 95 of 100 such studies."""

    low: float
    high: float


class BoundedInterval(NamedTuple):
    """An interval of a mean that stays inside the range of its values, and how it was made."""

    interval: Interval
    method: str = ""  # empty: Student's t; else "on the logit scale", "on the log scale" or "cut at the range's end"


class Paired(NamedTuple):
    """Two methods over the same seeds."""

    difference: float  # mean of the second minus the first
    interval: Interval | None  # of that difference; None if all pairs differ by the same amount
    t_test: float  # p value of the paired t test; if all pairs differ by the same amount, of the permutation test
    permutation: float  # p value of the permutation test
    pairs: int
    method: str = ""  # of the interval, as in BoundedInterval


ALL_SWAPS = 13  # pairs up to which every swap is computed; beyond, SWAPS random ones
SWAPS = 10_000
DRAWS = 2_000  # of the bootstrap
NO_SPREAD = 1e-9  # of the largest value: values that vary by less are equal

# --- Over seeds ---


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample: n - 1 in the denominator. Needs at least 2 values."""
    middle = mean(values)
    return math.sqrt(math.fsum((x - middle) ** 2 for x in values) / (len(values) - 1))


def t_interval(values: Sequence[float]) -> Interval | None:
    """The 95% interval of the mean by Student's t; None of fewer than two values, and if all are equal.

    Equal values are no certainty (two seeds that both reach 0.9 may be luck), but they have no spread to judge by.
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

    Student's interval if it lies inside. Else Student's interval of the logits of the values, or of their logarithms if
    there is no upper bound, transformed back: for a skewed metric near its end that is also the better interval. A
    value at the very end has no logit; then Student's interval is cut there.
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
    """Whether ``second`` differs from ``first``, value by value of the same seeds. Needs at least 2 pairs.

    If all pairs differ by the same amount, there is no spread to compare with, and Student's t is undefined: two seeds
    that both gain 0.01 are no certainty. The permutation test replaces it, and there is no interval.
    ``bounds``: of a difference, which its interval does not leave.
    """
    least = NO_SPREAD * max(map(abs, (*first, *second)))  # smaller differences are rounding
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

    Student's t assumes a normal distribution, which two to four pairs cannot show, and no permutation test of so few
    can reach 5%. So a t test of fewer than five pairs counts only if the permutation test agrees.
    """
    return p < ALPHA and (pair.pairs >= ENOUGH_PAIRS or pair.permutation < ALPHA)


def least_permutation(pairs: int) -> float:
    """The least p value that ``permutation_test`` can give: 0.25 of three pairs, 0.03 of six."""
    return 2 / 2**pairs if pairs <= ALL_SWAPS else 1 / (SWAPS + 1)


def permutation_test(differences: Sequence[float]) -> float:
    """The p value of a mean difference under swaps within pairs: all 2^n of them up to 13 pairs, else random ones."""
    values, n = np.asarray(differences, dtype=float), len(differences)
    if n <= ALL_SWAPS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)  # (2^n, n) of 1 and -1
    else:
        drawn = np.random.default_rng(0).choice([-1, 1], size=(SWAPS, n))
        signs = np.vstack([np.ones(n, dtype=int), drawn])  # the swap that was observed is one of them
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
    """The 95% interval of a share of so many rows, such as an accuracy. Needs at least 1 row."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle, scale = share + z * z / (2 * rows), 1 + z * z / rows
    half = z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def bootstrap_interval(metric: Callable[[np.ndarray], float], rows: int) -> Interval:
    """The 95% percentile interval of a metric over test rows; ``metric`` gets the numbers of the rows drawn (rows,)."""
    rng = np.random.default_rng(0)
    return _percentiles([metric(rng.integers(rows, size=rows)) for _ in range(DRAWS)])


def confusion_interval(metric: Callable[[np.ndarray], float], confusion: Sequence[Sequence[int]]) -> Interval:
    """The same for a metric of the confusion matrix (C, C): rows of one cell are alike, so cells are drawn."""
    counts = np.asarray(confusion)
    drawn = np.random.default_rng(0).multinomial(counts.sum(), counts.ravel() / counts.sum(), size=DRAWS)
    return _percentiles([metric(matrix.reshape(counts.shape)) for matrix in drawn])


def _percentiles(values: list[float]) -> Interval:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The p value that two runs are right equally often; (N,) booleans: which rows each has right, the same rows.

    Exact: of the b + c rows that only one run has right, the probability that the first has b is that of b heads in
    b + c tosses of a coin.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    ways, total = 1, 0  # ways: binomial coefficient (tosses, i)
    for i in range(fewer + 1):
        total += ways
        ways = ways * (tosses - i) // (i + 1)
    return min(1.0, 2 * total / 2**tosses)  # of whole numbers, which cannot overflow


# --- Many comparisons ---


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p value, corrected so that the probability of any false alarm among them all stays below the level."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected
