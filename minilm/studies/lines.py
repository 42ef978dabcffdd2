"""Lines: how a metric changes over the points of an axis, seed by seed. Several questions read and tabulate them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from minilm.evaluation.statistics import BoundedInterval, Interval, bounded_t_interval, mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.over_seeds import Tested, compare_all, difference_bounds, metric_bounds, with_spread
from minilm.reporting.page import Table
from minilm.reporting.tables import metric_name
from minilm.studies.finished import FinishedRun


@dataclass
class Line:
    """A metric over the points of an axis."""

    name: str
    metric: str
    at: dict[float, dict[int, float]] = field(default_factory=dict)  # x -> seed -> metric
    baseline: bool = False  # whether this is a baseline, fitted to the rows of the runs
    difference: bool = False  # whether these are differences of the metric
    texts: int = 0  # the number of texts of the metric
    point: dict[str, object] = field(default_factory=dict)  # its values on all other axes
    baselines: dict[str, Line] = field(default_factory=dict)  # kind -> the baseline that was fitted to the same rows

    def values(self, x: float) -> list[float]:
        """The metric at a point, for each seed."""
        return list(self.at.get(x, {}).values())

    def mean(self, x: float) -> float:
        """The mean over the seeds at a point."""
        return mean(self.values(x))

    def interval(self, x: float) -> BoundedInterval | None:
        """The 95% interval over the seeds; None with one seed, or if all seeds have the same value."""
        bounds = difference_bounds(self.metric) if self.difference else metric_bounds(self.metric)
        return bounded_t_interval(self.values(x), bounds)


def lines_of(
    runs: Sequence[FinishedRun], keys: Sequence[str], x_of: Callable[[FinishedRun], float], metric: str
) -> tuple[list[Line], list[Line]]:
    """Lines over the axes ``keys``: one for each variant, and one for each baseline but the majority.

    x_of: run -> its value on the axis.
    """
    lines: dict[str, Line] = {}
    for finished in runs:
        name, seed, x = finished.name_without(*keys), finished.seed, x_of(finished)
        if (value := finished.value(metric)) is None:
            continue
        place, texts = finished.point_without(*keys), finished.size("test")
        line = lines.setdefault(name, Line(name, metric, point=place, texts=texts))
        line.at.setdefault(x, {})[seed] = value
        for kind, reached in finished.baselines(metric).items():
            if kind != "majority":
                called = f"{kind} baseline ({name})"
                fitted = line.baselines.setdefault(kind, Line(called, metric, baseline=True, texts=texts))
                fitted.at.setdefault(x, {})[seed] = reached
    baselines = _merge_equal_baselines(list(lines.values()))
    for line in (*lines.values(), *baselines):
        line.at = dict(sorted(line.at.items()))
    return list(lines.values()), baselines


def _merge_equal_baselines(lines: Sequence[Line]) -> list[Line]:
    """Merge equal baselines, so that each has the points of all; return the distinct ones.

    Baselines are equal if they agree for every seed at every point that both have. Baselines on other data, or on the
    vectors of another model, are not equal.
    """
    found = []
    for kind in dict.fromkeys(kind for line in lines for kind in line.baselines):
        different: list[Line] = []
        for line in (line for line in lines if kind in line.baselines):
            own = line.baselines[kind]
            same = next((other for other in different if _equal(own, other)), None)
            if same is None:
                different.append(own)
                continue
            line.baselines[kind] = same
            for x, values in own.at.items():
                same.at[x] = {**values, **same.at.get(x, {})}
        if len(different) == 1:
            different[0].name = f"{kind} baseline"
        found += different
    return found


def _equal(first: Line, second: Line) -> bool:
    shared = [(x, seed) for x, seeds in first.at.items() for seed in seeds if seed in second.at.get(x, {})]
    return bool(shared) and all(math.isclose(first.at[x][s], second.at[x][s], abs_tol=1e-9) for x, s in shared)


def versus(first: Line, second: Line, points: Sequence[float]) -> Tested[float]:
    """``second`` minus ``first`` at each point."""
    return compare_all({x: (first.at.get(x, {}), second.at.get(x, {})) for x in points}, first.metric)


def ratio(part: Line, x: float, whole: Line, full: float) -> tuple[float, Interval | None] | None:
    """``part`` at x as a fraction of ``whole`` at ``full``, over the seeds that both have."""
    seeds = [seed for seed in part.at.get(x, {}) if seed in whole.at.get(full, {}) and whole.at[full][seed]]
    ratios = [part.at[x][seed] / whole.at[full][seed] for seed in seeds]
    if not ratios:
        return None
    found = bounded_t_interval(ratios, (0, math.inf))
    return mean(ratios), found.interval if found else None


def gain(metric: str, difference: float) -> float:
    """A difference of a metric as an improvement: positive if it is for the better."""
    return difference if HIGHER_IS_BETTER[metric] else -difference


def best_line(lines: Sequence[Line], x: float) -> Line:
    """The best line at a point, among those that have it."""
    return max((line for line in lines if line.values(x)), key=lambda line: gain(line.metric, line.mean(x)))


# --- In words ---


def lines_table(
    lines: Sequence[Line], title: str, label: Callable[[float], str], *, last: float | None = None
) -> Table:
    """A table with a row for each point and a column for each line. ``last``: the point in the last row."""
    points = sorted({x for line in lines for x in line.at}, key=lambda x: (x == last, x))
    rows = [[label(x), *(with_spread(line.values(x)) for line in lines)] for x in points]
    seeds = {len(values) for line in lines for values in line.at.values()}
    over = f"{min(seeds)} seeds" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"
    note = f"{metric_name(lines[0].metric)} on the test texts, mean ± standard deviation over {over}."
    return Table([title, *(line.name for line in lines)], rows, note=note[0].upper() + note[1:])


def rounded(n: float) -> str:
    """A number of texts to two digits; very large numbers as "more than 100 million"."""
    if n > 1e8:
        return "more than 100 million"
    return f"{float(f'{n:.2g}'):,.0f}"
