"""How much of a model can stay frozen? Quality and speed against the number of parameters that train.

Each degree of freezing is a variant, or a point of the axis ``freeze.layers``. The one with the most trained parameters
is the reference that the others are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from minilm.errors import UserError
from minilm.evaluation.statistics import ALPHA, ENOUGH_PAIRS, Paired, bounded_t_interval, mean
from minilm.reporting.compare import learning
from minilm.reporting.groups import Group, costs_of
from minilm.reporting.over_seeds import (
    ALONE,
    compare_all,
    metric_bounds,
    reached,
    shown_p,
    significance,
    tested,
    with_spread,
)
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.style import SERIES, SMALL, legend, name_axes, new_figure, save, short, widen, within_range
from minilm.reporting.tables import ABSENT, duration, join_words, metric_name, short_count, titled
from minilm.studies.finished import FinishedRun, groups_of
from minilm.studies.line_plots import axis_label
from minilm.studies.lines import gain
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion

_NEEDS = "runs with different [freeze] or [lora], and none with a section [zero_shot]"
NAMES_IN_PICTURE = 6  # if there are more, the points are numbered, and the legend names them


@dataclass(frozen=True)
class FreezingLevel:
    """One degree of freezing, over its seeds."""

    group: Group
    trained: float  # parameters
    total: float
    seconds: float  # of training
    speed: float  # tokens per second
    against_reference: tuple[Paired, float] | None = None  # the difference, and its p value after Holm


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """Compare the metric and the training time of each degree of freezing with the reference."""
    metric = study.config.metric
    levels = levels_of(runs, metric)
    if not levels:
        why = f"the analysis freezing needs runs that have the metric {metric} on test texts"
        raise UserError(f"{why}; give a metric that they have, such as metric=accuracy")
    parts: list[Block] = [
        Picture(
            _draw(levels, metric, figures / "freezing.png"),
            f"{metric_name(metric)} and training time over the parameters that train",
        ),
        _table(levels, metric),
    ]
    sections = [Section("What stays frozen, and the effect", parts)]
    if curves := learning([level.group for level in levels], metric, figures):
        sections.append(Section("Learning curves", curves))
    return StudyAnswer(_headline(levels, metric), sections)


def levels_of(runs: Sequence[FinishedRun], metric: str) -> list[FreezingLevel]:
    """Each degree of freezing that has the metric, the one that trains most first, the others compared with it."""
    levels = []
    for group in groups_of(runs):
        if group.values(metric):
            costs = [costs_of(run) for run in group.runs]
            seconds, speeds = [cost.seconds or 0 for cost in costs], [cost.tokens_per_second or 0 for cost in costs]
            trained, total = (mean([cost.trained for cost in costs]), mean([cost.total for cost in costs]))
            levels.append(FreezingLevel(group, trained, total, mean(seconds), mean(speeds)))
    levels.sort(key=lambda level: -level.trained)
    by_seed = [level.group.by_seed(metric) for level in levels]
    found = compare_all({i: (by_seed[0], by_seed[i]) for i in range(1, len(levels))}, metric)
    return [replace(level, against_reference=found.get(i)) for i, level in enumerate(levels)]


def _table(levels: Sequence[FreezingLevel], metric: str) -> Table:
    header = ["", "trained parameters", "fraction", f"test {metric_name(metric)}"]
    header += [f"change from {levels[0].group.name}", "95% interval", "p", "training", "tokens/s"]
    rows = []
    for level in levels:
        test = [ABSENT] * 3
        if level.against_reference:
            pair, p = level.against_reference
            interval = f"{pair.interval.low:+.4f} to {pair.interval.high:+.4f}" if pair.interval else ABSENT
            test = [f"{pair.difference:+.4f}", interval, shown_p(p)]
        fraction = f"{level.trained / level.total:.1%}" if level.total else ABSENT
        quality = with_spread(level.group.values(metric))
        costs = [duration(level.seconds), short_count(level.speed)]
        rows.append([level.group.name, short_count(level.trained), fraction, quality, *test, *costs])
    note = "±: standard deviation over the seeds. p: paired t test over the same seeds (permutation test if the "
    note += f"difference is the same with all seeds), corrected after Holm. {ALONE}"
    return Table(header, rows, note=note)


def _headline(levels: Sequence[FreezingLevel], metric: str) -> str:
    """How far one can freeze before the metric falls, and what that saves."""
    reference, name = levels[0], metric_name(metric)
    base = (
        f"{reference.group.name}, which trains the most parameters ({short_count(reference.trained)}), has {name} "
        f"{reached(reference.group.values(metric), metric)}."
    )
    found = [(level, *level.against_reference) for level in levels if level.against_reference]
    if not found:
        return f"With one seed it is undecided what freezing costs. {base}"
    untested = [level.group.name for level in levels[1:] if not level.against_reference]
    rest = f" {join_words(untested)} ran with too few seeds for a test." if untested else ""
    unharmed = [(level, pair, p) for level, pair, p in found if p >= ALPHA or gain(metric, pair.difference) >= 0]
    if not unharmed:
        level, pair, p = found[0]
        verb, which = "lowers" if gain(metric, 1) > 0 else "raises", " that was tested" if untested else ""
        by = f"{abs(pair.difference):.3f} ({tested(pair, p, len(found), unsigned=True)}), which {significance(pair, p)}"
        return (
            f"Every degree of freezing{which} {verb} the {name}: {level.group.name}, which freezes least, by {by}. "
            f"{base}{rest}"
        )
    level, pair, p = unharmed[-1]
    faster = f" and takes {level.seconds / reference.seconds:.0%} of the time" if reference.seconds else ""
    opening = f"{level.group.name} freezes the most without a significant loss: it"
    if pair.pairs < ENOUGH_PAIRS:
        opening = (
            f"It is undecided what freezing costs: {pair.pairs} seeds are too few to show a loss (at least "
            f"{ENOUGH_PAIRS} are needed). {level.group.name}, the most frozen of those whose loss the t test does not "
            "find,"
        )
    trains = f"{opening} trains {level.trained / reference.trained:.1%} of the parameters{faster}"
    change = f"{pair.difference:+.3f} ({tested(pair, p, len(found))})"
    return f"{trains}, and its {name} changes by {change}. {base}{rest}"


# --- The picture ---


def _draw(levels: Sequence[FreezingLevel], metric: str, path: Path) -> Path:
    """The metric and the training time against the number of parameters that train."""
    figure = new_figure(12, 5.4, "What freezing costs and saves")
    quality, time = figure.subplots(1, 2)
    longest = max(level.seconds for level in levels)
    scale, unit = (60, "minutes") if longest >= 180 else (1, "seconds")
    seconds = [[(costs_of(run).seconds or 0) / scale for run in level.group.runs] for level in levels]
    names = [short(level.group.name, 22) for level in levels]
    if len(levels) > NAMES_IN_PICTURE:
        for i, name in enumerate(names, 1):
            quality.plot([], [], " ", label=f"{i}  {name}")
        names = [str(i) for i, _ in enumerate(levels, 1)]
    metrics = [level.group.values(metric) for level in levels]
    _draw_over_trained(quality, levels, metrics, metric_bounds(metric), names, SERIES[1])
    _draw_over_trained(time, levels, seconds, (0, float("inf")), names, SERIES[0])
    within_range(quality, metric)
    widen(quality, metric, min(level.group.texts() for level in levels))
    bottom, top = min(0, time.get_ylim()[0]), time.get_ylim()[1]  # below 0 for names
    time.set_yticks([tick for tick in time.get_yticks() if 0 <= tick <= top])
    time.set_ylim(bottom, top)
    name_axes(quality, title=f"{titled(metric)} on the test texts", x="Parameters that train", y=axis_label(metric))
    name_axes(time, title="Training time", x="Parameters that train", y=f"Time ({unit})")
    legend(figure, [quality])
    return save(figure, path, svg=True)


def _draw_over_trained(
    axes: Axes,
    levels: Sequence[FreezingLevel],
    values: Sequence[Sequence[float]],
    bounds: tuple[float, float],
    names: Sequence[str],
    style: Mapping[str, Any],
) -> None:
    """The mean of each level with its interval and its name, over the parameters that train."""
    x = np.array([max(level.trained, 1) for level in levels])
    means = np.array([mean(found) for found in values])
    intervals = [bounded_t_interval(found, bounds) for found in values]
    ends = [found.interval if found else (m, m) for found, m in zip(intervals, means, strict=True)]
    reach = np.array([[max(0.0, m - low), max(0.0, high - m)] for (low, high), m in zip(ends, means, strict=True)]).T
    label = "mean, 95% interval over seeds"
    axes.errorbar(x, means, yerr=reach, label=label, linewidth=2, elinewidth=1.4, capsize=4, markersize=8, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: short_count(n)))
    axes.xaxis.set_minor_locator(NullLocator())
    room, ticks = 0.13 * np.log(x[0] / x[-1]), [x[0]]
    for n in x[1:]:
        if np.log(ticks[-1] / n) > room:
            ticks.append(n)
    axes.set_xticks(ticks)
    axes.grid(alpha=0.3)
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    text: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL - 1, "bbox": paper}
    for i, (name, n, (low, high)) in enumerate(zip(names, x, ends, strict=True)):
        place, offset = ((n, high), (0, 7)) if i % 2 else ((n, low), (0, -17))  # above and below in turn
        axes.annotate(name, place, offset, **text)
    axes.margins(0.12, 0.25)


def _fits(study: Study) -> bool:
    """Whether the classifiers of a plan differ in which of their parameters train."""
    trained = {(repr(run.config.freeze), repr(run.config.adapters)) for run in study.runs if run.config.train}
    return len(trained) > 1 and not any(run.config.zero_shot for run in study.runs)


FREEZING = StudyQuestion("freezing", _answer, fits=_fits, needs=_NEEDS)
