"""Figures of several runs: their metrics, with the spread over seeds, and their learning curves."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from minilm.evaluation.statistics import Interval, mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.groups import Group, costs_of, method_over_rows
from minilm.reporting.style import (
    GREY,
    MARK,
    SERIES,
    SMALL,
    TEST,
    TEXT,
    VALIDATION,
    legend,
    name_axes,
    new_figure,
    save,
    short,
    widen,
    within_range,
)
from minilm.reporting.tables import duration, short_count, titled

DASHES = ("--", ":", "-.", (0, (6, 2)), (0, (4, 1, 1, 1, 1, 1)))  # of level lines
LOG_EPOCHS, LOG_LOSS = 20, 3  # if values differ by more than this factor, the axis is logarithmic
UNITS = {"loss": "nats", "perplexity": "tokens", "mcc": "-1 to 1"}


def bars(
    groups: Sequence[Group], metric: str, path: Path, *, split: str = "test", lines: Mapping[str, float] | None = None
) -> Path:
    """Two panels with the 95% interval: a bar for each group, from zero; and, enlarged, a dot for each run.

    Args:
        groups: the groups that have the metric on the split.
        lines: values to compare with, such as baselines, by name.
        path: the PNG to write; an SVG is written beside it.
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
    whole.set_xlim(left=min(0.0, *means))  # an interval may reach below 0
    wrapped = [textwrap.fill(short(group.name, 48), 26) for group in groups]
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
    widen(close, metric, min(group.texts(split) for group in groups), which="x")
    legend(figure, (whole, close))
    return save(figure, path, svg=True)


def _spread(axes: Axes, place: int, group: Group, metric: str, split: str, middle: float, *, dots: bool) -> list[float]:
    """Draw a group's interval, and its runs as dots; return all values that must be visible."""
    values, found = group.values(metric, split), group.interval(metric, split)
    low = high = middle
    if found:
        (low, high), over = found
        by_seed = len(values) > 1
        method = over.partition(", ")[2] or "Student's t"
        over_rows = f"95% interval over {over} ({method_over_rows(metric)})"
        label = f"mean, 95% interval over seeds ({method})" if by_seed else over_rows
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
    """A row for each name, with a dot for each series and its interval over the test rows.

    Args:
        names: the names of the rows, from top to bottom.
        series: the name of a series -> the metric of each row, and its interval if there is one.
        lines: values to compare with all rows, by name.
        path: the PNG to write; an SVG is written beside it.
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
    axes.plot([], [], " ", label=f"bars: 95% interval over test rows ({method_over_rows(metric)})")
    axes.set_yticks(places, [textwrap.fill(short(name, 60), 30) for name in names], fontsize=SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    name_axes(axes, title="", x=f"{titled(metric)} ({UNITS.get(metric, '0 to 1')})", y="")
    legend(figure, [axes])
    return save(figure, path, svg=True)


def curves(groups: Sequence[Group], metrics: Sequence[str], path: Path) -> Path:
    """Validation metrics over the epochs, a panel each: every run thin, the mean of a group's seeds thick.

    If there are more groups than colours, the best seven by the last metric have one each and the others are grey.
    A loss that falls to a third has a logarithmic axis, and so have epochs that range over a factor of 20 or more. A
    PNG is written, and an SVG beside it.
    """
    figure = new_figure(5.5 * len(metrics), 4.8, "Learning curves on the validation texts")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    styles = _styles(groups, metrics[-1])
    for axes, metric in zip(panels, metrics, strict=True):
        _learning_panel(axes, groups, styles, metric)
    legend(figure, panels)
    return save(figure, path, svg=True)


def _learning_panel(axes: Axes, groups: Sequence[Group], styles: Sequence[dict[str, Any]], metric: str) -> None:
    """The learning curves of all groups in one panel, with its axes."""
    for group, style in zip(groups, styles, strict=True):
        _learning(axes, group, metric, style)
    points = [point for group in groups for line in _lines(group, metric) for point in line]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    log_x, log_y = last >= LOG_EPOCHS * first > 0, metric in ("loss", "perplexity") and high > LOG_LOSS * low > 0
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.10g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.10g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: f"{y:.10g}" if f"{y:e}"[0] in "25" else ""))
    unit = UNITS.get(metric, "0 to 1")
    name_axes(
        axes,
        title=titled(metric),
        x="Epoch (logarithmic)" if log_x else "Epoch",
        y=f"{titled(metric)} ({unit}{', logarithmic' if log_y else ''})",
    )
    axes.grid(alpha=0.3)
    if first == last:  # one evaluation each
        axes.set_xlim(first - 1, last + 1)
    if metric not in ("loss", "perplexity"):
        within_range(axes, metric)
        widen(axes, metric, min(group.texts("validation") for group in groups))


def _styles(groups: Sequence[Group], metric: str) -> list[dict[str, Any]]:
    """The style of each group."""
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
    shared = min(map(len, grids))  # the mean ends where the first run stops
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
    """The epoch and the metric of every evaluation, one list per run."""
    return [
        [(entry.epoch, value) for entry in run.history if (value := entry.validation.get(metric)) is not None]
        for run in group.runs
    ]


# --- Overview ---


def dashboard(groups: Sequence[Group], metric: str, path: Path, *, split: str = "test") -> Path:
    """One figure with metrics, learning curves, training time and size of each group: a PNG, and an SVG beside it."""
    height = 1.3 + 0.45 * len(groups)
    figure = new_figure(13, 2 * max(height, 3.4) + 1, "At a glance")
    (quality, learning), (time, size) = figure.subplots(2, 2)
    styles = _styles(groups, metric)
    values = [group.values(metric, split) for group in groups]
    _bar_panel(quality, groups, [mean(found) if found else None for found in values], styles, lambda x: f"{x:.3f}")
    for place, group in enumerate(groups):
        if group.values(metric, split):
            _spread(quality, place, group, metric, split, mean(group.values(metric, split)), dots=False)
    within = f"{titled(metric)} ({UNITS.get(metric, '0 to 1')})"
    name_axes(quality, title=f"{titled(metric)} on the {split} texts, 95% interval", x=within, y="")
    if any(_lines(group, metric)[0] for group in groups):
        _learning_panel(learning, groups, styles, metric)
        learning.set_title(f"{titled(metric)} on the validation texts", fontsize=TEXT)
    else:
        learning.set_axis_off()
    costs = [[costs_of(run) for run in group.runs] for group in groups]
    seconds = [_mean_of([cost.seconds for cost in found]) for found in costs]
    _bar_panel(time, groups, seconds, styles, duration)
    name_axes(time, title="Training time", x="Seconds", y="")
    trained = [_mean_of([float(cost.trained) for cost in found]) for found in costs]
    _bar_panel(size, groups, trained, styles, short_count)
    name_axes(size, title="Parameters that train", x="Parameters", y="")
    size.xaxis.set_major_formatter(FuncFormatter(lambda n, _: short_count(n)))
    legend(figure, [learning])
    return save(figure, path, svg=True)


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _bar_panel(
    axes: Axes,
    groups: Sequence[Group],
    values: Sequence[float | None],
    styles: Sequence[Mapping[str, Any]],
    text: Callable[[float], str],
) -> None:
    """A bar for each group, from zero, with its value written at its end."""
    largest = max((value for value in values if value is not None), default=1.0)
    for place, (value, style) in enumerate(zip(values, styles, strict=True)):
        if value is not None:
            axes.barh(place, value, 0.62, color=style["color"], alpha=0.45, edgecolor=style["color"], linewidth=1.2)
            where: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(
                text(value), (1.0, place), xycoords=("axes fraction", "data"), fontsize=SMALL - 1, **where
            )
    axes.set_xlim(min(0.0, *(value for value in values if value is not None), 0.0), 1.05 * largest or 1)
    axes.set_yticks(range(len(groups)), [textwrap.fill(short(group.name, 48), 24) for group in groups], fontsize=SMALL)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
