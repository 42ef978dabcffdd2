"""What is said of runs over seeds: mean and spread, intervals, and tests of two ways to train over the same seeds.

Where many pairs are tested p values are corrected for all of them at once (Holm), as the best of many is ahead by luck
too. Intervals are not: each is of its own comparison alone, and that is said beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from minilm.evaluation.statistics import (
    Interval,
    Paired,
    deviation,
    holm,
    least_permutation,
    mean,
    paired,
    t_interval,
)
from minilm.reporting.page import Table
from minilm.reporting.tables import ABSENT, count, decimal, p_value

Key = TypeVar("Key")
Tested = dict[Key, tuple[Paired, float]]  # what was compared -> the paired test, and its p value after Holm


def compare_all(pairs: Mapping[Key, tuple[Mapping[int, float], Mapping[int, float]]]) -> Tested[Key]:
    """The second minus the first of each pair (seed -> metric) over the seeds they share, where those are two or more;
    p values after Holm."""
    found = {}
    for key, (first, second) in pairs.items():
        seeds = [seed for seed in first if seed in second]
        if len(seeds) > 1:
            found[key] = paired([first[seed] for seed in seeds], [second[seed] for seed in seeds])
    corrected = holm([pair.t_test for pair in found.values()])
    return {key: (pair, p) for (key, pair), p in zip(found.items(), corrected, strict=True)}


def versus_table(
    found: Tested[Key],
    titles: Sequence[str],
    cells: Callable[[Key], Sequence[str]],
    difference: str = "difference",
) -> Table:
    """What the tests over the same seeds say, with p values after Holm; ``cells`` tell what was compared."""
    rows = []
    for key, (pair, corrected) in found.items():
        between = f"{pair.interval.low:+.4f} to {pair.interval.high:+.4f}" if pair.interval else ABSENT
        t_test = shown_p(pair.t_test) if pair.interval else ABSENT
        tests = [t_test, shown_p(corrected), shown_p(pair.permutation)]
        rows.append([*cells(key), f"{pair.difference:+.4f}", between, *tests, count(pair.pairs)])
    fewest = min(pair.pairs for pair, _ in found.values())
    note = "Seed by seed."
    if len(found) > 1:
        note += f" Corrected: for {len(found)} comparisons at once, after Holm. {ALONE}"
    note += f" With {fewest} seeds the permutation test cannot get below {least_permutation(fewest):.4f}."
    note += f" {ALIKE}" if any(pair.interval is None for pair, _ in found.values()) else ""
    header = [*titles, difference, "95% interval", "paired t: p", "corrected: p", "permutation: p", "seeds"]
    return Table(header, rows, note=note)


# --- In words ---

ALONE = "Each interval is of its comparison alone."
ALIKE = f"{ABSENT}: all seeds differ alike, of which Student's t says nothing; the permutation test stands in for it."


def tested(pair: Paired, p: float, comparisons: int, *, sized: bool = False) -> str:
    """``95% interval +0.010 to +0.030 over 3 seeds; paired t test: p = 0.012``.

    comparisons: for how many at once p is corrected. sized: the difference is told by its size ("0.020 less"), so the
    interval is of that size.
    """
    test = f"{'paired t' if pair.interval else 'permutation'} test{corrected_for(comparisons)}: {p_value(p)}"
    if pair.interval is None:
        return f"{interval_of(pair)}; {test}"
    alone = ", of this comparison alone" if comparisons > 1 else ""
    return f"{interval_of(pair, sized=sized)} over {pair.pairs} seeds{alone}; {test}"


def interval_of(pair: Paired, *, sized: bool = False) -> str:
    """``95% interval +0.010 to +0.030``, or why there is none."""
    if pair.interval is None:
        return f"the same with all {pair.pairs} seeds"
    low, high = pair.interval
    if sized:
        low, high = (low, high) if pair.difference > 0 else (-high, -low)
        return f"95% interval {low:.3f} to {high:.3f}"
    return f"95% interval {low:+.3f} to {high:+.3f}"


def corrected_for(comparisons: int) -> str:
    """What is said of a p value of so many."""
    return f", corrected for {comparisons} comparisons" if comparisons > 1 else ""


def shown_p(p: float) -> str:
    """A p value to four places."""
    return f"{p:.4f}" if p >= 1e-4 else "below 0.0001"


def between(interval: Interval, over: str) -> str:
    """``95% interval 0.890 to 0.924 over 3 seeds``."""
    return f"95% interval {interval.low:.3f} to {interval.high:.3f} over {over}"


def reached(values: Sequence[float]) -> str:
    """``0.907 (95% interval 0.890 to 0.924 over 3 seeds)``."""
    if len(values) < 2:
        return f"{values[0]:.3f} (one seed)" if values else ABSENT
    interval = t_interval(values)
    told = between(interval, f"{len(values)} seeds") if interval else f"the same with all {len(values)} seeds"
    return f"{mean(values):.3f} ({told})"


def with_spread(values: Sequence[float]) -> str:
    """``0.9070 ±0.0120``."""
    if len(values) < 2:
        return decimal(values[0] if values else None)
    return f"{decimal(mean(values))} ±{decimal(deviation(values))}"
