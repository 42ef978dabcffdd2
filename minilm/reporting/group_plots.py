"""Pictures of several runs: how well each does, with the spread over seeds, and how each learned."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import Interval, mean
from minilm.reporting.groups import Group
from minilm.reporting.style import (
    GREY,
    MARK,
    SERIES,
    SMALL,
    TEST,
    VALIDATION,
    legend,
    name_axes,
    new_figure,
    save,
    short,
)
from minilm.reporting.tables import metric_name

DASHES = ("--", ":", "-.", (0, (6, 2)), (0, (4, 1, 1, 1, 1, 1)))  # of level lines
UNITS = {"loss": "nats", "perplexity": "tokens", "mcc": "-1 to 1"}


def bars(
    groups: Sequence[Group], metric: str, path: Path, *, split: str = "test", lines: Mapping[str, float] | None = None
) -> Path:
    """A bar for each group, from zero, and the same closer, each run as a dot; both with the 95% interval.

    Args:
        groups: those that have the metric on the split.
        lines: values to compare with, such as baselines, by name.
        path: the PNG to write; an SVG goes beside it.
    """
    figure = new_figure(11, 2.1 + 0.55 * len(groups), f"{titled(metric)} on the {split} texts")
    whole, close = figure.subplots(1, 2, sharey=True)
    colour = TEST if split == "test" else VALIDATION
    places = np.arange(len(groups))
    means = [mean(group.values(metric, split)) for group in groups]
    seen: list[float] = []
    for axes in (whole, close):
        if axes is whole:
            axes.barh(places, means, 0.62, color=colour, alpha=0.45, edgecolor=colour, linewidth=1.2)
        for i, group in enumerate(groups):
            seen += _spread(axes, i, group, metric, split, means[i], dots=axes is close)
        axes.set_axisbelow(True)
        axes.grid(axis="x", alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for style, (name, value) in zip(itertools.cycle(DASHES), (lines or {}).items(), strict=False):
        whole.axvline(value, color=MARK, linewidth=1.6, linestyle=style, label=f"{name}: {value:.3f}")
    whole.set_xlim(left=min(0.0, *means))  # an interval of few seeds may reach below
    wrapped = [textwrap.fill(short(group.name, 60), 26) for group in groups]
    whole.set_yticks(places, wrapped, fontsize=SMALL)
    whole.invert_yaxis()
    unit = f"{titled(metric)} ({UNITS.get(metric, '0 to 1')})"
    name_axes(whole, title="From zero", x=unit, y="")
    name_axes(close, title="Closer", x=unit, y="")
    close.tick_params(left=False)
    for i, value in enumerate(means):
        close.annotate(f"{value:.3f}", (1.02, i), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
    margin = 0.12 * (max(seen) - min(seen)) or 0.05 * abs(max(seen)) or 0.5
    close.set_xlim(min(seen) - margin, max(seen) + margin)
    legend(figure, (whole, close))
    return save(figure, path, svg=True)


def _spread(axes: Axes, place: int, group: Group, metric: str, split: str, middle: float, *, dots: bool) -> list[float]:
    """A group's interval, and its runs as dots; return all that must be in view."""
    values, found = group.values(metric, split), group.interval(metric, split)
    low = high = middle
    if found:
        (low, high), over = found
        by_seed = len(values) > 1
        label = "mean, 95% interval over seeds (Student's t)" if by_seed else f"95% interval over {over} (bootstrap)"
        style: dict[str, Any] = {"color": MARK, "markersize": 13, "elinewidth": 2, "capsize": 5, "capthick": 2}
        reach = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
        axes.errorbar(middle, place, xerr=reach, fmt="|", label=label, **style)
    if dots:
        heights = place + (np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1))
        style = {"color": "white", "markeredgecolor": MARK, "markeredgewidth": 1.3, "markersize": 6.5}
        axes.plot(values, heights, "o", label="one run", **style)
    return [*values, low, high]


def dots(
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, Interval | None]]],
    metric: str,
    path: Path,
    *,
    lines: Mapping[str, float],
) -> Path:
    """A row for each name, in it a dot for each of a few series, each with its interval over the test rows.

    Args:
        names: of the rows, the first on top.
        series: what the dots mean -> the metric of each row, and its interval where there is one.
        lines: values to compare all rows with, by name.
        path: the PNG to write; an SVG goes beside it.
    """
    figure = new_figure(9.5, 2.4 + 0.6 * len(names), f"{titled(metric)} on the test texts")
    axes = figure.subplots()
    places = np.arange(len(names))
    for i, ((label, values), style) in enumerate(zip(series.items(), SERIES, strict=False)):
        heights = places + 0.22 * (i - (len(series) - 1) / 2)
        middles = [value for value, _ in values]
        ends = [interval or (value, value) for value, interval in values]
        reach = [[max(0.0, m - low) for m, (low, _) in zip(middles, ends, strict=True)]]
        reach.append([max(0.0, high - m) for m, (_, high) in zip(middles, ends, strict=True)])
        look: dict[str, Any] = {"color": style["color"], "fmt": style["marker"], "markersize": 9, "capsize": 4}
        axes.errorbar(middles, heights, xerr=reach, elinewidth=1.8, label=label, **look)
    for style_of_line, (name, value) in zip(itertools.cycle(DASHES), lines.items(), strict=False):
        axes.axvline(value, color=MARK, linewidth=1.6, linestyle=style_of_line, label=f"{name}: {value:.3f}")
    axes.plot([], [], " ", label="bars: 95% interval over test rows (bootstrap)")
    axes.set_yticks(places, [textwrap.fill(short(name, 60), 30) for name in names], fontsize=SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    name_axes(axes, title="", x=f"{titled(metric)} ({UNITS.get(metric, '0 to 1')})", y="")
    legend(figure, [axes])
    return save(figure, path, svg=True)


def curves(groups: Sequence[Group], metrics: Sequence[str], path: Path) -> Path:
    """Validation metrics over the epochs, a panel each: every run thin, the mean of a group's seeds thick.

    Where there are more groups than a picture can tell apart, the best seven by the last metric are told apart and the
    others are grey. A PNG is written, and an SVG beside it.
    """
    figure = new_figure(5.5 * len(metrics), 4.8, "Learning curves on the validation texts")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    styles = _styles(groups, metrics[-1])
    for axes, metric in zip(panels, metrics, strict=True):
        for group, style in zip(groups, styles, strict=True):
            _learning(axes, group, metric, style)
        unit = UNITS.get(metric, "0 to 1")
        name_axes(axes, title=titled(metric), x="Epoch", y=f"{titled(metric)} ({unit})")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.grid(alpha=0.3)
        if np.ptp(axes.dataLim.intervalx) == 0:  # one evaluation each
            axes.set_xlim(axes.dataLim.x0 - 1, axes.dataLim.x0 + 1)
    legend(figure, panels)
    return save(figure, path, svg=True)


def _styles(groups: Sequence[Group], metric: str) -> list[dict[str, Any]]:
    """How each group is drawn."""
    if len(groups) <= len(SERIES):
        return [{**style, "label": short(group.name, 40)} for group, style in zip(groups, SERIES, strict=False)]
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    ends = [sign * max((sign * y for _, y in _lines(group, metric)[0]), default=-np.inf) for group in groups]
    ranked = sorted(range(len(groups)), key=lambda i: -sign * ends[i])
    grey = {"color": GREY, "linestyle": "-", "marker": "", "alpha": 0.5, "linewidth": 1.2, "label": "the others"}
    styles = [grey] * len(groups)
    for i, style in zip(ranked, SERIES, strict=False):
        styles[i] = {**style, "label": short(groups[i].name, 40)}
    return styles


def _learning(axes: Axes, group: Group, metric: str, style: dict[str, Any]) -> None:
    lines = [line for line in _lines(group, metric) if line]
    if not lines:
        return
    grids = {tuple(x for x, _ in line) for line in lines}
    shared = min(map(len, grids))  # a run that stopped early ends the mean
    same = len({grid[:shared] for grid in grids}) == 1
    if len(lines) > 1 or not same:
        for line in lines:
            one = "." if len(line) == 1 else ""
            axes.plot(*zip(*line, strict=True), color=style["color"], linewidth=0.9, alpha=0.45, marker=one)
    if same:
        x, middle = next(iter(grids))[:shared], [mean([line[i][1] for line in lines]) for i in range(shared)]
        every = {"markevery": max(1, len(x) // 12), "markersize": 6.5}
        axes.plot(x, middle, **{"linewidth": 2.2, **every, **style})


def _lines(group: Group, metric: str) -> list[list[tuple[float, float]]]:
    """Epoch and metric of every evaluation, a list a run."""
    return [
        [
            (entry.epoch, value)
            for entry in run.history
            if (value := entry.validation.get(metric)) is not None
        ]
        for run in group.runs
    ]


def titled(metric: str) -> str:
    """A metric's name as a title: "Macro F1"."""
    name = metric_name(metric)
    return name[0].upper() + name[1:]
