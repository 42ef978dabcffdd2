"""Figures with lines over an axis, such as a metric over the number of training texts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from minilm.reporting.group_plots import DASHES, UNITS
from minilm.reporting.style import GREY, MARK, SERIES, legend, name_axes, new_figure, save, short, widen, within_range
from minilm.reporting.tables import titled
from minilm.studies.lines import Line

BASELINE_STYLES: tuple[dict[str, Any], ...] = (  # grey, thin, with their own markers
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
    linear: bool = False,
) -> Path:
    """Each line with its 95% intervals over the seeds. The x axis is logarithmic, or linear with ``linear``;
    ``references`` are horizontal lines."""
    figure = new_figure(9, 5.6, title)
    axes = figure.subplots()
    for line, style, offset in zip(lines, styles_of(lines), offsets(len(lines)), strict=True):
        draw_line(axes, line, style, offset=offset, linear=linear)
    for dashes, (name, value) in zip(itertools.cycle(DASHES), (references or {}).items(), strict=False):
        axes.axhline(value, color=MARK, linewidth=1.5, linestyle=dashes, label=f"{name}: {value:.3f}")
    add_explanations(axes, lines)
    points = sorted({point for line in lines for point in line.at})
    if linear:
        axes.set_xticks(points)
    else:
        log_axis(axes, points)
    name_axes(axes, title="", x=x, y=axis_label(metric))
    within_range(axes, metric)
    widen(axes, metric, fewest_texts(lines))
    axes.grid(alpha=0.3)
    legend(figure, [axes])
    return save(figure, path, svg=True)


# --- Parts of these pictures ---


def styles_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Colours for the fine-tuned models, grey for the baselines. When a style is used again, its markers are hollow."""
    counts = [0, 0]
    found = []
    for line in lines:
        kinds = BASELINE_STYLES if line.baseline else SERIES
        reused, place = divmod(counts[line.baseline], len(kinds))
        hollow = {"markerfacecolor": "white"} if reused else {}
        found.append({**kinds[place], **hollow, "label": short(line.name, 40)})
        counts[line.baseline] += 1
    return found


def draw_line(
    axes: Axes, line: Line, style: Mapping[str, Any], *, join: bool = True, offset: float = 0, linear: bool = False
) -> None:
    """Draw a line's means, its seeds as small dots, and its intervals as bars; ``join``: connect the means.

    ``offset``: shift to the right by this fraction of the x axis, so that the bars of several lines do not overlap.
    """
    x = np.array(list(line.at))
    if offset:
        x = x + offset * np.ptp(x) if linear else x * max(x.max() / x.min(), 5) ** offset
    means = np.array([line.mean(point) for point in line.at])
    found = [line.interval(point) for point in line.at]
    ends = [bounded.interval if bounded else (m, m) for bounded, m in zip(found, means, strict=True)]
    reach = np.array([[max(0.0, m - low), max(0.0, high - m)] for (low, high), m in zip(ends, means, strict=True)])
    drawn = {"linewidth": 2.2, "markersize": 7.5, **style}
    if not join:
        drawn["linestyle"] = "none"
    axes.errorbar(x, means, yerr=reach.T, elinewidth=1.4, capsize=4, **drawn)
    if not line.baseline:
        for point, values in zip(x, line.at.values(), strict=True):
            if len(values) > 1:
                axes.plot([point] * len(values), list(values.values()), ".", color=style["color"], alpha=0.4, ms=6)


def offsets(lines: int, step: float = 0.012) -> list[float]:
    """The ``offset`` of each line, so that their bars do not overlap."""
    return [step * (place - (lines - 1) / 2) for place in range(lines)]


def add_explanations(axes: Axes, lines: Sequence[Line], more: str = "") -> None:
    """Explain bars and bands in the legend."""
    found = [interval for line in lines for x in line.at if (interval := line.interval(x))]
    if found:
        methods = sorted({interval.method for interval in found} - {""})
        others = f"; {' or '.join(methods)} if that leaves the range" if methods else ""
        axes.plot([], [], " ", label=f"bars: 95% interval over seeds (Student's t{others})")
    if more:
        axes.plot([], [], " ", label=more)


def fewest_texts(lines: Sequence[Line]) -> int:
    """The smallest number of texts on which the metric of one of the lines was computed."""
    return min(line.texts for line in lines)


def log_axis(axes: Axes, points: Sequence[float]) -> None:
    """Make the x axis logarithmic, with a tick at each point if there is room."""
    axes.set_xscale("log")
    kept: list[float] = []
    for x in points:
        if not kept or x / kept[-1] >= (points[-1] / points[0]) ** 0.06:
            kept.append(x)
    axes.set_xticks(kept)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def axis_label(metric: str) -> str:
    """A metric with its range: ``Accuracy (0 to 1)``."""
    return f"{titled(metric)} ({UNITS.get(metric, '0 to 1')})"
