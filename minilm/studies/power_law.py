"""Fit a power law with a floor to the error over the number of training rows, with its uncertainty.

    error(n) = a n^-b + c        a, b, c >= 0        (Hestness et al. 2017, "Deep Learning Scaling is Predictable")

**The fit** is by weighted least squares. For a given b the law is linear in a and c, whose best values have a formula.
So all b from 0.01 to 3 are tried, first on a coarse grid, then on a fine grid around the best: there is no starting
point and no local minimum. The weights are 1 / variance of each size's mean. The standard deviation over seeds is taken
from a line through log deviation against log n, because the deviation of three seeds is itself uncertain. With one
seed, the deviation is taken to be a fraction of the error, the same at every size, estimated from the residuals of the
fit.

**The band** is a parametric bootstrap: the measured means are drawn again around the fitted curve, with Student noise
of their standard error, and fitted again, 2,000 times. The middle 95% of these curves are the interval. The seeds
themselves are not resampled, because 3 seeds can be drawn in only 10 ways. If the curve misses the means by more than
their noise, the noise is increased until it explains the misfit (Birge 1932).

**Does the error fall?** Means are drawn around the best flat line, with normal noise of one standard error that is as
uncertain as its degrees of freedom imply, and fitted. The error falls if its fall from the smallest to the largest size
is larger than in 95% of these fits.

**Where it flattens**: twice the rows lower the error by a n^-b (1 - 2^-b). This gain is below x from

    n_x = (a (1 - 2^-b) / x)^(1/b)      rows on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minilm.evaluation.statistics import LEVEL, Interval, deviation, mean

DRAWS = 2_000
EXPONENTS = np.geomspace(0.01, 3, 120)
FINE = np.linspace(-1, 1, 31)  # steps of EXPONENTS


@dataclass(frozen=True)
class PowerLaw:
    """error = a n^-b + c, and the fits to data that were drawn again."""

    sizes: np.ndarray  # (m,) of training rows
    means: np.ndarray  # (m,) errors, over seeds
    seeds: np.ndarray  # (m,)
    spread: np.ndarray  # (m,) standard deviation of one run
    freedom: int  # degrees of freedom of the spread
    parameters: np.ndarray  # (3,): a, b, c
    drawn: np.ndarray  # (draws, 3)

    def error(self, n: float | np.ndarray) -> np.ndarray:
        """The fitted error with n rows."""
        return _error(self.parameters, n)

    def band(self, n: float | Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95% interval of the fitted error with n rows: lower and upper ends, each of the shape of n."""
        curves = np.stack([_error(p, np.asarray(n, dtype=float)) for p in self.drawn])
        low, high = np.quantile(curves, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low, high

    def prediction(self, n: float, seeds: int) -> Interval:
        """The 95% prediction interval of the mean error of ``seeds`` new runs with n rows."""
        curves = np.array([_error(p, n) for p in self.drawn])
        spread = np.exp(np.interp(math.log(n), np.log(self.sizes), np.log(np.maximum(self.spread, 1e-12))))
        noise = np.random.default_rng(1).standard_t(self.freedom, len(curves)) * spread / math.sqrt(seeds)
        low, high = np.quantile(curves + noise, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(low), float(high))

    def exponent(self) -> Interval:
        """The 95% interval of b."""
        low, high = np.quantile(self.drawn[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(low), float(high))

    def floor(self) -> Interval:
        """The 95% interval of c."""
        low, high = np.quantile(self.drawn[:, 2], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(low), float(high))

    @property
    def falls(self) -> bool:
        """Whether the error falls from the smallest to the largest size by more than chance explains."""
        draws, rng = len(self.drawn), np.random.default_rng(2)
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, (draws, 1)))
        noise = rng.standard_normal((draws, len(self.sizes))) * scale * self.spread / np.sqrt(self.seeds)
        weights = self.seeds / self.spread**2
        flat = _fit(self.sizes, np.average(self.means, weights=weights) + noise, weights)
        return self._fall(self.parameters) > max(1e-9, np.quantile([self._fall(p) for p in flat], LEVEL))

    def _fall(self, parameters: np.ndarray) -> float:
        first, last = _error(parameters, self.sizes[[0, -1]])
        return float(first - last)

    def flattens(self, gain: float) -> tuple[float, Interval]:
        """The number of rows from which twice as many lower the error by less than ``gain``, with its 95% interval."""
        low, high = np.quantile([_flattens(p, gain) for p in self.drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return _flattens(self.parameters, gain), Interval(float(low), float(high))


def why_no_power_law(errors: Mapping[int, Sequence[float]]) -> str:
    """The reason why no law can be fitted to these errors; empty if it can. errors: size -> the error of each seed."""
    sizes = [size for size, values in errors.items() if values]
    repeated = sum(len(values) - 1 for values in errors.values() if values)
    if len(sizes) < 3:
        return f"a curve with three parameters needs at least three sizes, but there are {len(sizes)}"
    if len(sizes) == 3 and not repeated:
        return "with one seed, a fourth size is needed to estimate the error of the curve"
    return ""


def fit_power_law(errors: Mapping[int, Sequence[float]], *, draws: int = DRAWS, seed: int = 0) -> PowerLaw:
    """Fit to errors: size -> the error of each seed. Raises ValueError with the reason of ``why_no_power_law``."""
    if why := why_no_power_law(errors):
        raise ValueError(why)
    sizes = np.array(sorted(size for size in errors if errors[size]), dtype=float)
    means = np.array([mean(errors[int(n)]) for n in sizes])
    seeds = np.array([len(errors[int(n)]) for n in sizes])
    freedom = int((seeds - 1).sum())
    if freedom:
        spread = _smooth_spread(sizes, [errors[int(n)] for n in sizes], means)
    else:
        spread, freedom = np.maximum(means, 1e-6), len(sizes) - 3
    weights = seeds / spread**2
    parameters = _fit(sizes, means[None], weights)[0]
    off = float((weights * (means - _error(parameters, sizes)) ** 2).sum()) / max(len(sizes) - 3, 1)
    if len(sizes) > 3 and (off > 1 or seeds.max() == 1):
        spread = spread * math.sqrt(max(off, 1e-12))
    noise = np.random.default_rng(seed).standard_t(freedom, (draws, len(sizes))) * spread / np.sqrt(seeds)
    drawn = _fit(sizes, _error(parameters, sizes) + noise, weights)
    return PowerLaw(sizes, means, seeds, spread, freedom, parameters, drawn)


def _error(parameters: np.ndarray, n: float | np.ndarray) -> np.ndarray:
    a, b, c = parameters
    return a * np.asarray(n, dtype=float) ** -b + c


def _flattens(parameters: np.ndarray, gain: float) -> float:
    a, b, _ = parameters
    if a <= 0:
        return 0.0
    return float(np.exp(min(np.log(a * (1 - 2**-b) / gain) / b, 700.0)))


def _smooth_spread(sizes: np.ndarray, errors: Sequence[Sequence[float]], means: np.ndarray) -> np.ndarray:
    """The standard deviation of a run at each size (m,): on a line in logarithms, weighted by degrees of freedom."""
    known = [i for i, values in enumerate(errors) if len(values) > 1]
    # Few seeds on few test rows may have a deviation of 0, which is not certainty.
    least = 1e-3 * max(float(means.max()), 1e-3)
    deviations = np.array([max(deviation(errors[i]), least) for i in known])
    freedom = np.array([len(errors[i]) - 1 for i in known], dtype=float)
    x, y = np.log(sizes[known]), np.log(deviations)
    if len(known) < 3:
        return np.full(len(sizes), math.sqrt(float((freedom * deviations**2).sum() / freedom.sum())))
    middle = (freedom * x).sum() / freedom.sum()
    slope = (freedom * (x - middle) * y).sum() / (freedom * (x - middle) ** 2).sum()
    level = (freedom * y).sum() / freedom.sum()
    smooth = np.exp(level + slope * (np.log(sizes) - middle))
    # The mean of logarithms lies below the logarithm of the mean: the level is that of the variances.
    scale = (freedom * deviations**2 / smooth[known] ** 2).sum() / freedom.sum()
    return smooth * math.sqrt(scale)


def _fit(sizes: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The best a, b and c for each row of ``targets`` (D, m): (D, 3)."""
    scale = math.exp(float(np.log(sizes).mean()))  # n in units of the middle size, so that no power is extreme
    x = sizes / scale
    coarse, _ = _best(x, targets, weights, np.tile(EXPONENTS, (len(targets), 1)))
    step = EXPONENTS[1] / EXPONENTS[0]
    b, (a, c) = _best(x, targets, weights, np.clip(coarse[:, None] * step**FINE, EXPONENTS[0], EXPONENTS[-1]))
    return np.stack([a * scale**b, b, c], axis=1)


def _best(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, exponents: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The best of the exponents (D, E) in each row, with its a and c; (D,) each."""
    powers = x ** -exponents[:, :, None]  # (D, E, m)
    y = targets[:, None]  # (D, 1, m)
    total, sx, sy = weights.sum(), powers @ weights, y @ weights  # (), (D, E), (D, 1)
    sxx, sxy = powers**2 @ weights, (powers * y) @ weights  # (D, E)
    determinant = np.maximum(total * sxx - sx**2, 1e-300)
    a, c = (total * sxy - sx * sy) / determinant, (sxx * sy - sx * sxy) / determinant
    flat, bare = a < 0, c < 0  # out of bounds: the best is on the border, with c = 0 or a = 0
    a, c = np.where(bare, np.maximum(sxy / sxx, 0), a), np.where(bare, 0, c)
    a, c = np.where(flat, 0, a), np.where(flat, np.maximum(sy / total, 0), c)
    off = ((a[:, :, None] * powers + c[:, :, None] - y) ** 2) @ weights
    best = off.argmin(axis=1)[:, None]
    chosen, a, c = (np.take_along_axis(v, best, axis=1)[:, 0] for v in (exponents, a, c))
    return chosen, (a, c)
