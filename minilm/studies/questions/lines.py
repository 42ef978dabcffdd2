"""What several questions share: how a metric runs over the points of an axis, seed by seed, and how it is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import Interval, Paired, deviation, holm, mean, paired, t_interval
from minilm.reporting.groups import metrics_of
from minilm.reporting.page import Table
from minilm.reporting.tables import ABSENT, decimal, metric_name, p_value

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished

LEVEL = 0.05  # below it a p value is called significant
Key = TypeVar("Key")
Tested = dict[Key, tuple[Paired, float]]  # what was compared -> the paired test, and its p value after Holm


@dataclass
class Line:
    """A metric over the points of an axis."""

    name: str
    at: dict[float, dict[int, float]] = field(default_factory=dict)  # x -> seed -> metric
    baseline: bool = False  # trained on the same rows, beside the runs

    def values(self, x: float) -> list[float]:
        """The metric at a point, of each seed."""
        return list(self.at.get(x, {}).values())

    def mean(self, x: float) -> float:
        """Over the seeds at a point."""
        return mean(self.values(x))

    def interval(self, x: float) -> Interval | None:
        """The 95% interval over the seeds (Student's t); None with one seed."""
        values = self.values(x)
        return t_interval(values) if len(values) > 1 else None


def lines_of(
    runs: Sequence[Finished], keys: Sequence[str], place: Callable[[Finished], float], metric: str
) -> tuple[list[Line], list[Line]]:
    """Lines over the axes ``keys``: one for each variant, and one for each baseline but the majority.

    place: where on the axis a run is. The baselines are those of the first variant's runs.
    """
    lines: dict[str, Line] = {}
    baselines: dict[str, Line] = {}
    for finished in runs:
        name, seed, x = name_without(finished, *keys), finished.planned.config.seed, place(finished)
        value = metrics_of(finished.run, "test").get(metric)
        if value is None:
            continue
        lines.setdefault(name, Line(name)).at.setdefault(x, {})[seed] = float(value)
        if name != next(iter(lines)):
            continue
        for kind, reached in finished.run.results.get("baselines", {}).items():
            if kind != "majority" and metric in reached.get("test", {}):
                line = baselines.setdefault(kind, Line(f"{kind} baseline", baseline=True))
                line.at.setdefault(x, {})[seed] = float(reached["test"][metric])
    for line in (*lines.values(), *baselines.values()):
        line.at = dict(sorted(line.at.items()))
    return list(lines.values()), list(baselines.values())


def name_without(finished: Finished, *keys: str) -> str:
    """What a run is beside its seed and its place on these axes."""
    axes = [
        f"{key.rpartition('.')[2]} {value}"
        for key, value in finished.planned.point.items()
        if key not in ("seed", *keys)
    ]
    return ", ".join([finished.planned.variant, *axes] if finished.planned.variant else axes) or "fine-tuned"


def compare_all(pairs: Mapping[Key, tuple[dict[int, float], dict[int, float]]]) -> Tested[Key]:
    """The second minus the first of each pair (seed -> metric) over the seeds they share; p values after Holm."""
    found = {}
    for key, (first, second) in pairs.items():
        seeds = [seed for seed in first if seed in second]
        if len(seeds) > 1:
            found[key] = paired([first[seed] for seed in seeds], [second[seed] for seed in seeds])
    corrected = holm([pair.t_test for pair in found.values()])
    return {key: (pair, p) for (key, pair), p in zip(found.items(), corrected, strict=True)}


def versus(first: Line, second: Line, points: Sequence[float]) -> Tested[float]:
    """``second`` minus ``first`` at each point."""
    return compare_all({x: (first.at.get(x, {}), second.at.get(x, {})) for x in points})


def ratio(part: Line, x: float, whole: Line, full: float) -> tuple[float, Interval | None] | None:
    """What ``part`` reaches at x as a share of what ``whole`` reaches at ``full``, over the seeds they share."""
    seeds = [seed for seed in part.at.get(x, {}) if seed in whole.at.get(full, {}) and whole.at[full][seed]]
    shares = [part.at[x][seed] / whole.at[full][seed] for seed in seeds]
    if not shares:
        return None
    return mean(shares), t_interval(shares) if len(shares) > 1 else None


def ahead(metric: str, difference: float) -> float:
    """A difference of metrics as a lead: positive where it is for the better."""
    return difference if HIGHER_IS_BETTER[metric] else -difference


def best_line(lines: Sequence[Line], x: float, metric: str) -> Line:
    """The line that is best at a point, of those that are there."""
    return max((line for line in lines if line.values(x)), key=lambda line: ahead(metric, line.mean(x)))


# --- In words ---


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def reached(values: Sequence[float]) -> str:
    """``0.907 (95% interval 0.890 to 0.924 over 3 seeds)``."""
    if len(values) < 2:
        return f"{values[0]:.3f} (one seed)" if values else ABSENT
    low, high = t_interval(values)
    return f"{mean(values):.3f} (95% interval {low:.3f} to {high:.3f} over {len(values)} seeds)"


def with_spread(values: Sequence[float]) -> str:
    """``0.9070 ±0.0120``."""
    if len(values) < 2:
        return decimal(values[0] if values else None)
    return f"{decimal(mean(values))} ±{decimal(deviation(values))}"


def tested(pair: Paired, p: float, number: int) -> str:
    """``95% interval +0.010 to +0.030; paired t test, corrected for 7 comparisons: p = 0.012``."""
    many = f", corrected for {number} comparisons" if number > 1 else ""
    low, high = pair.interval
    return f"95% interval {low:+.3f} to {high:+.3f} over {pair.pairs} seeds; paired t test{many}: {p_value(p)}"


def lines_table(lines: Sequence[Line], title: str, metric: str, shown: Callable[[float], str]) -> Table:
    """A row a point, a column a line."""
    points = sorted({x for line in lines for x in line.at}, key=lambda x: (x == 0, x))  # 0 stands for all
    rows = [[shown(x), *(with_spread(line.values(x)) for line in lines)] for x in points]
    seeds = {len(values) for line in lines for values in line.at.values()}
    over = f"{min(seeds)} seeds" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)} seeds"
    note = f"{metric_name(metric)} on the test texts, mean ± standard deviation over {over}."
    return Table([title, *(line.name for line in lines)], rows, note=note[0].upper() + note[1:])


def number(n: float) -> str:
    """A number of texts, to two digits, or that it is beyond all reason."""
    if n > 1e8:
        return "more than 100 million"
    return f"{float(f'{n:.2g}'):,.0f}"
