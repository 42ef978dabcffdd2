"""Pictures of lines over an axis: a metric over the number of texts, or over labels that were chosen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from minilm.reporting.group_plots import DASHES, UNITS, titled
from minilm.reporting.style import GREY, MARK, SERIES, legend, name_axes, new_figure, save, short, within_range
from minilm.studies.questions.lines import Line

if TYPE_CHECKING:
    from minilm.studies.questions.active import Setting

BASELINES: tuple[dict[str, Any], ...] = (  # grey, thin, with markers of their own
    {"color": GREY, "linestyle": (0, (3, 1.5)), "marker": "x", "linewidth": 1.6},
    {"color": GREY, "linestyle": (0, (1, 1.5)), "marker": "+", "linewidth": 1.6},
    {"color": GREY, "linestyle": "-", "marker": "1", "linewidth": 1.6},
)


def line_picture(
    lines: Sequence[Line],
    metric: str,
    path: Path,
    *,
    title: str,
    x: str,
    references: Mapping[str, float] | None = None,
    even: bool = False,
) -> Path:
    """Each line with its 95% interval over the seeds, on a logarithmic axis, or an ``even`` one; ``references`` are
    level lines."""
    figure = new_figure(9, 5.6, title)
    axes = figure.subplots()
    for line, style, aside in zip(lines, styles_of(lines), side_by_side(len(lines)), strict=True):
        draw_line(axes, line, style, aside=aside, even=even)
    for dashes, (name, value) in zip(itertools.cycle(DASHES), (references or {}).items(), strict=False):
        axes.axhline(value, color=MARK, linewidth=1.5, linestyle=dashes, label=f"{name}: {value:.3f}")
    explain(axes, lines)
    points = sorted({point for line in lines for point in line.at})
    if even:
        axes.set_xticks(points)
    else:
        log_axis(axes, points)
    name_axes(axes, title="", x=x, y=unit(metric))
    within_range(axes, metric)
    axes.grid(alpha=0.3)
    legend(figure, [axes])
    return save(figure, path, svg=True)


# --- Active learning ---


def active_picture(settings: Sequence[Setting], metric: str, path: Path) -> Path:
    """A row a setting: what each rule reaches, and beside it how far that lies above random choice, seed by seed."""
    columns = 1 + any(setting.leads for setting in settings)
    title = "What labels are worth, by how the texts are chosen"
    figure = new_figure(9 if columns == 1 else 12.5, 1.2 + 4.4 * len(settings), title)
    panels = figure.subplots(len(settings), columns, sharex="col", sharey="col", squeeze=False)
    for i, (row, setting) in enumerate(zip(panels, settings, strict=True)):
        lines = setting.drawn
        styles = dict(zip((line.name for line in lines), styles_of(lines), strict=True))
        for axes, shown, step in zip(row, (lines, setting.leads), (0.007, 0.02), strict=False):
            for line, aside in zip(shown, side_by_side(len(shown), step), strict=True):
                draw_line(axes, line, styles[line.name], aside=aside)
            explain(axes, shown)
            log_axis(axes, sorted({x for line in shown for x in line.at}))
            axes.grid(alpha=0.3)
        below = "Labelled texts" if i == len(settings) - 1 else ""
        name_axes(row[0], title=short(setting.name, 40), x=below, y=unit(metric))
        within_range(row[0], metric)
        if columns == 2:
            name_axes(row[1], title="Minus random choice, seed by seed", x=below, y="Difference")
            row[1].axhline(0, linewidth=2.2, color=SERIES[0]["color"])  # as random choice, the first line, is drawn
    legend(figure, panels.ravel())
    return save(figure, path, svg=True)


# --- Their parts ---


def styles_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Colours for what was fine-tuned, grey for the baselines; where they come round again the markers are hollow."""
    counts = [0, 0]
    found = []
    for line in lines:
        kinds = BASELINES if line.baseline else SERIES
        again, place = divmod(counts[line.baseline], len(kinds))
        hollow = {"markerfacecolor": "white"} if again else {}
        found.append({**kinds[place], **hollow, "label": short(line.name, 40)})
        counts[line.baseline] += 1
    return found


def draw_line(
    axes: Axes, line: Line, style: Mapping[str, Any], *, join: bool = True, aside: float = 0, even: bool = False
) -> None:
    """A line's means, its seeds as small dots, and its intervals as bars; ``join``: with lines between the means.

    ``aside``: to the right by this share of the axis, a logarithmic or an ``even`` one, to tell the bars of several
    lines apart.
    """
    x = np.array(list(line.at))
    if aside:
        x = x + aside * np.ptp(x) if even else x * max(x.max() / x.min(), 5) ** aside
    means = np.array([line.mean(point) for point in line.at])
    intervals = [line.interval(point) or (m, m) for point, m in zip(line.at, means, strict=True)]
    reach = np.array([[max(0.0, m - low), max(0.0, high - m)] for (low, high), m in zip(intervals, means, strict=True)])
    drawn = {"linewidth": 2.2, "markersize": 7.5, **style}
    if not join:
        drawn["linestyle"] = "none"
    axes.errorbar(x, means, yerr=reach.T, elinewidth=1.4, capsize=4, **drawn)
    if not line.baseline:
        for point, values in zip(x, line.at.values(), strict=True):
            if len(values) > 1:
                axes.plot([point] * len(values), list(values.values()), ".", color=style["color"], alpha=0.4, ms=6)


def side_by_side(lines: int, step: float = 0.012) -> list[float]:
    """How far ``aside`` to draw each of so many lines, so that no bar hides another."""
    return [step * (place - (lines - 1) / 2) for place in range(lines)]


def explain(axes: Axes, lines: Sequence[Line], more: str = "") -> None:
    """Say in the legend what bars and bands are."""
    if any(len(values) > 1 for line in lines for values in line.at.values()):
        axes.plot([], [], " ", label="bars: 95% interval over seeds")
    if more:
        axes.plot([], [], " ", label=more)


def log_axis(axes: Axes, points: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each point, as far as there is room."""
    axes.set_xscale("log")
    kept: list[float] = []
    for x in points:
        if not kept or x / kept[-1] >= (points[-1] / points[0]) ** 0.06:
            kept.append(x)
    axes.set_xticks(kept)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def unit(metric: str) -> str:
    """``Accuracy (0 to 1)``."""
    return f"{titled(metric)} ({UNITS.get(metric, '0 to 1')})"
