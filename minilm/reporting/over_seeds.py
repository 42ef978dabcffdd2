"""Results over seeds: mean and spread, intervals, and tests of two methods over the same seeds.

If several pairs are tested, p values are corrected for all of them at once (Holm), because the best of many may be best
by chance. Intervals are not corrected: each belongs to one comparison, and the texts say so.

Intervals over seeds are Student's. If Student's interval would leave the range of the metric, it is computed on the
logit or log scale instead (``minilm.evaluation.statistics.bounded_t_interval``), and the text names that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from minilm.evaluation.statistics import (
    ALPHA,
    ENOUGH_PAIRS,
    BoundedInterval,
    Interval,
    Paired,
    bounded_t_interval,
    deviation,
    holm,
    is_significant,
    least_permutation,
    mean,
    paired,
)
from minilm.reporting.page import Table
from minilm.reporting.tables import ABSENT, count, decimal, p_value

Key = TypeVar("Key")
Tested = dict[Key, tuple[Paired, float]]  # comparison -> the paired test, and its p value after Holm's correction


def metric_bounds(metric: str) -> tuple[float, float]:
    """The smallest and the largest value that a metric can have."""
    return {"loss": (0.0, math.inf), "perplexity": (1.0, math.inf), "mcc": (-1.0, 1.0)}.get(metric, (0.0, 1.0))


def difference_bounds(metric: str) -> tuple[float, float]:
    """The smallest and the largest difference of two values of a metric."""
    low, high = metric_bounds(metric)
    return low - high, high - low


def seeds_interval(values: Sequence[float], metric: str) -> BoundedInterval | None:
    """The 95% interval of a metric's mean over seeds; None for one seed, and if all seeds have the same value."""
    return bounded_t_interval(values, metric_bounds(metric))


def compare_all(
    pairs: Mapping[Key, tuple[Mapping[int, float], Mapping[int, float]]], metric: str
) -> Tested[Key]:
    """Compare the two methods of each pair (seed -> metric), second minus first, over the seeds that both have, if
    there are at least two. The p values are corrected after Holm."""
    found = {}
    for key, (first, second) in pairs.items():
        seeds = [seed for seed in first if seed in second]
        if len(seeds) > 1:
            values = [first[seed] for seed in seeds], [second[seed] for seed in seeds]
            found[key] = paired(*values, bounds=difference_bounds(metric))
    corrected = holm([pair.t_test for pair in found.values()])
    return {key: (pair, p) for (key, pair), p in zip(found.items(), corrected, strict=True)}


def versus_table(
    found: Tested[Key],
    titles: Sequence[str],
    cells: Callable[[Key], Sequence[str]],
    difference: str = "difference",
) -> Table:
    """The table of tests over the same seeds, with p values after Holm. ``cells``: comparison -> its first cells."""
    rows = []
    for key, (pair, corrected) in found.items():
        interval = f"{pair.interval.low:+.4f} to {pair.interval.high:+.4f}" if pair.interval else ABSENT
        t_test = shown_p(pair.t_test) if pair.interval else ABSENT
        tests = [t_test, shown_p(corrected), shown_p(pair.permutation)]
        rows.append([*cells(key), f"{pair.difference:+.4f}", interval, *tests, count(pair.pairs)])
    fewest = min(pair.pairs for pair, _ in found.values())
    note = "Seed by seed."
    if len(found) > 1:
        note += f" Corrected: for {len(found)} comparisons at once, after Holm. {ALONE}"
    if methods := sorted({pair.method for pair, _ in found.values()} - {""}):
        note += f" Intervals that would leave the range of the metric are {' or '.join(methods)}."
    note += f" With {fewest} seeds the permutation test cannot get below {least_permutation(fewest):.4f}."
    note += f" {ALIKE}" if any(pair.interval is None for pair, _ in found.values()) else ""
    header = [*titles, difference, "95% interval", "paired t: p", "corrected: p", "permutation: p", "seeds"]
    return Table(header, rows, note=note)


# --- In words ---

ALONE = "Each interval refers to one comparison."
ALIKE = f"{ABSENT}: all seeds have the same difference, so Student's t is undefined; the permutation test replaces it."


def significance(pair: Paired, p: float) -> str:
    """Whether a difference is significant, as the end of a sentence after ", which"."""
    if is_significant(pair, p):
        return "is significant at 5%"
    if p < ALPHA:
        return f"{pair.pairs} seeds are too few to call significant (at least {ENOUGH_PAIRS} are needed)"
    return "is not significant at 5%"


def tested(pair: Paired, p: float, comparisons: int, *, unsigned: bool = False) -> str:
    """``95% interval +0.010 to +0.030 over 3 seeds; paired t test: p = 0.012``.

    comparisons: the number of comparisons in the correction of p. unsigned: the text contains the size of the
    difference ("0.020 less"), so the interval must be that of the size.
    """
    test = f"{'paired t' if pair.interval else 'permutation'} test{corrected_for(comparisons)}: {p_value(p)}"
    if pair.interval is None:
        return f"{interval_of(pair)}; {test}"
    alone = ", of this comparison alone" if comparisons > 1 else ""
    return f"{interval_of(pair, unsigned=unsigned)} over {pair.pairs} seeds{alone}; {test}"


def interval_of(pair: Paired, *, unsigned: bool = False) -> str:
    """``95% interval +0.010 to +0.030``, or why there is none."""
    if pair.interval is None:
        return f"the same with all {pair.pairs} seeds"
    low, high = pair.interval
    method = f", {pair.method}," if pair.method else ""
    if unsigned:
        low, high = (low, high) if pair.difference >= 0 else (-high, -low)
        return f"95% interval{method} {low:.3f} to {high:.3f}"
    return f"95% interval{method} {low:+.3f} to {high:+.3f}"


def corrected_for(comparisons: int) -> str:
    """The addition to the name of a test if there are several comparisons."""
    return f", corrected for {comparisons} comparisons" if comparisons > 1 else ""


def shown_p(p: float) -> str:
    """A p value to four places."""
    return f"{p:.4f}" if p >= 1e-4 else "below 0.0001"


def interval_over(interval: Interval, over: str) -> str:
    """``95% interval 0.890 to 0.924 over 3 seeds``."""
    return f"95% interval {interval.low:.3f} to {interval.high:.3f} over {over}"


def over_how_many(values: Sequence[float], found: BoundedInterval) -> str:
    """The number of seeds of an interval, and its method unless Student's: ``3 seeds``, ``2 seeds, on the logit
    scale``.
    """
    return f"{len(values)} seeds" + (f", {found.method}" if found.method else "")


def reached(values: Sequence[float], metric: str) -> str:
    """``0.907 (95% interval 0.890 to 0.924 over 3 seeds)``."""
    if len(values) < 2:
        return f"{values[0]:.3f} (one seed)" if values else ABSENT
    found = seeds_interval(values, metric)
    alike = f"the same with all {len(values)} seeds"
    spread = interval_over(found.interval, over_how_many(values, found)) if found else alike
    return f"{mean(values):.3f} ({spread})"


def with_spread(values: Sequence[float]) -> str:
    """``0.9070 ±0.0120``."""
    if len(values) < 2:
        return decimal(values[0] if values else None)
    return f"{decimal(mean(values))} ±{decimal(deviation(values))}"
