"""What several questions share: how a metric runs over the points of an axis, seed by seed, and how it is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import Interval, mean, t_interval
from minilm.reporting.over_seeds import Tested, compare_all, with_spread
from minilm.reporting.page import Table
from minilm.reporting.tables import metric_name

if TYPE_CHECKING:
    from minilm.studies.analyses import Finished


@dataclass
class Line:
    """A metric over the points of an axis."""

    name: str
    at: dict[float, dict[int, float]] = field(default_factory=dict)  # x -> seed -> metric
    baseline: bool = False  # trained on the same rows, beside the runs
    point: dict[str, Any] = field(default_factory=dict)  # its place on all other axes
    baselines: dict[str, Line] = field(default_factory=dict)  # kind -> what was fitted to this line's rows

    def values(self, x: float) -> list[float]:
        """The metric at a point, of each seed."""
        return list(self.at.get(x, {}).values())

    def mean(self, x: float) -> float:
        """Over the seeds at a point."""
        return mean(self.values(x))

    def interval(self, x: float) -> Interval | None:
        """The 95% interval over the seeds (Student's t); None with one seed, or where all reach the same."""
        return t_interval(self.values(x))


def lines_of(
    runs: Sequence[Finished], keys: Sequence[str], place: Callable[[Finished], float], metric: str
) -> tuple[list[Line], list[Line]]:
    """Lines over the axes ``keys``: one for each variant, and those of their baselines but the majority.

    place: where on the axis a run is.
    """
    lines: dict[str, Line] = {}
    for finished in runs:
        name, seed, x = name_without(finished, *keys), finished.planned.config.seed, place(finished)
        value = finished.run.metric(metric)
        if value is None:
            continue
        line = lines.setdefault(name, Line(name, point=_point_without(finished, *keys)))
        line.at.setdefault(x, {})[seed] = value
        for kind, reached in finished.run.results.baselines.items():
            if kind != "majority" and (value := reached.tested(metric)) is not None:
                fitted = line.baselines.setdefault(kind, Line(f"{kind} baseline ({name})", baseline=True))
                fitted.at.setdefault(x, {})[seed] = value
    baselines = _share_baselines(list(lines.values()))
    for line in (*lines.values(), *baselines):
        line.at = dict(sorted(line.at.items()))
    return list(lines.values()), baselines


def _share_baselines(lines: Sequence[Line]) -> list[Line]:
    """Make one of baselines that are the same, so that each fills the gaps of the others; return those there are.

    They are the same where they are equal with every seed at every point that both were fitted at: those of other data,
    or on the vectors of another model, are not.
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


def _point_without(finished: Finished, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in finished.planned.point.items() if key not in ("seed", *keys)}


def name_without(finished: Finished, *keys: str) -> str:
    """What a run is beside its seed and its place on these axes."""
    axes = [f"{key.rpartition('.')[2]} {value}" for key, value in _point_without(finished, *keys).items()]
    return ", ".join([finished.planned.variant, *axes] if finished.planned.variant else axes) or "the model"


def versus(first: Line, second: Line, points: Sequence[float]) -> Tested[float]:
    """``second`` minus ``first`` at each point."""
    return compare_all({x: (first.at.get(x, {}), second.at.get(x, {})) for x in points})


def ratio(part: Line, x: float, whole: Line, full: float) -> tuple[float, Interval | None] | None:
    """What ``part`` reaches at x as a share of what ``whole`` reaches at ``full``, over the seeds they share."""
    seeds = [seed for seed in part.at.get(x, {}) if seed in whole.at.get(full, {}) and whole.at[full][seed]]
    shares = [part.at[x][seed] / whole.at[full][seed] for seed in seeds]
    if not shares:
        return None
    return mean(shares), t_interval(shares)


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


def lines_table(
    lines: Sequence[Line], title: str, metric: str, shown: Callable[[float], str], *, last: float | None = None
) -> Table:
    """A row a point, a column a line; ``last``: the point that stands below the others, whatever its size."""
    points = sorted({x for line in lines for x in line.at}, key=lambda x: (x == last, x))
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
