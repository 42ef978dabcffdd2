"""The pictures of seeds, scaling, freezing and sweeps: PNG, and an SVG beside each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import mean, t_interval
from minilm.reporting.group_plots import titled
from minilm.reporting.groups import Group, costs_of
from minilm.reporting.style import (
    MARK,
    SERIES,
    SMALL,
    TEST,
    TEXT,
    TRAIN,
    VALIDATION,
    darker,
    ink,
    legend,
    name_axes,
    new_figure,
    save,
    short,
)
from minilm.reporting.tables import short_count
from minilm.schema import shown as as_toml
from minilm.studies.questions.line_pictures import draw_line, explain, log_axis, side_by_side, styles_of, unit
from minilm.studies.questions.lines import Line
from minilm.studies.questions.sweep import in_order, numbers

if TYPE_CHECKING:
    from minilm.studies.questions.freezing import Way
    from minilm.studies.questions.sweep import Choice, Grid
    from minilm.studies.scaling import Curve

SHADES = LinearSegmentedColormap.from_list("shades", ["white", VALIDATION, darker(VALIDATION)])


# --- Seeds ---


def boxes(groups: Sequence[Group], metric: str, path: Path) -> Path:
    """Box plots of the metric and of the training time, every run a dot."""
    figure = new_figure(11, 2.6 + 0.7 * len(groups), "What every seed reached, and how long it took")
    panels = figure.subplots(1, 2, sharey=True)
    quality = [group.values(metric) for group in groups]
    times = [[s for run in group.runs if (s := costs_of(run).seconds) is not None] for group in groups]
    longest = max((s for group in times for s in group), default=1)
    scale, name = (60, "minutes") if longest >= 180 else (1, "seconds")
    _boxes(panels[0], quality, TEST)
    _boxes(panels[1], [[s / scale for s in group] for group in times], TRAIN)
    places = range(1, len(groups) + 1)
    panels[0].set_yticks(places, [short(group.name, 30) for group in groups], fontsize=SMALL)
    panels[0].set_ylim(len(groups) + 0.6, 0.4)
    name_axes(panels[0], title="On the test texts", x=unit(metric), y="")
    name_axes(panels[1], title="Training", x=f"Time ({name})", y="")
    panels[1].set_xlim(left=0)
    panels[1].tick_params(left=False)
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    legend(figure, [panels[0]])
    return save(figure, path, svg=True)


def _boxes(axes: Axes, values: Sequence[Sequence[float]], colour: str) -> None:
    for place, found in enumerate(values, start=1):
        axes.boxplot(
            [found],
            positions=[place],
            orientation="horizontal",
            widths=0.5,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": to_rgba(colour, 0.4), "edgecolor": MARK},
            medianprops={"color": MARK, "linewidth": 2.5},
            manage_ticks=False,
        )
        heights = place + (np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else np.zeros(1))
        style: dict[str, Any] = {"color": "white", "markeredgecolor": MARK, "markeredgewidth": 1.3, "markersize": 7}
        axes.plot(
            found, heights, "o", label="one run; box: quartiles, thick line: median" if place == 1 else None, **style
        )


# --- Scaling ---


def scaling_picture(lines: Sequence[Line], curves: Mapping[str, Curve], metric: str, path: Path) -> Path:
    """The metric, and the error on logarithmic axes: as measured, and as the power law has it, to twice the rows."""
    figure = new_figure(12, 5.6, "What more training texts give")
    plain, log = figure.subplots(1, 2)
    for line, style, aside in zip(lines, styles_of(lines), side_by_side(len(lines)), strict=True):
        draw_line(plain, line, style, join=line.name not in curves, aside=aside)
        error = Line(
            line.name, {x: {s: 1 - v for s, v in seeds.items()} for x, seeds in line.at.items()}, line.baseline
        )
        draw_line(log, error, style, join=line.name not in curves, aside=aside)
        if line.name in curves:
            _law(plain, log, curves[line.name], style, band=not line.baseline)
    explain(plain, lines, "lines: a n^-b + c; band: its 95% interval" if curves else "")
    points = sorted({x for line in lines for x in line.at})
    errors = [1 - v for line in lines for values in line.at.values() for v in values.values()]
    _error_axis(log, errors)
    for axes in (plain, log):
        log_axis(axes, points)
        axes.axvspan(points[-1], 2.05 * points[-1], color="#000000", alpha=0.06, linewidth=0)
        axes.grid(alpha=0.3)
    values = [1 - e for e in errors]
    margin = 0.08 * (max(values) - min(values)) or 0.05
    plain.set_ylim(min(values) - margin, max(values) + margin)
    name_axes(plain, title=titled(metric), x="Training texts (shaded: not measured)", y=unit(metric))
    name_axes(
        log, title="Error, both axes logarithmic", x="Training texts (shaded: not measured)", y=f"1 - {titled(metric)}"
    )
    legend(figure, [plain])
    return save(figure, path, svg=True)


def _error_axis(axes: Axes, errors: Sequence[float]) -> None:
    """A logarithmic axis with round ticks."""
    axes.set_yscale("log")
    low, high = 0.8 * max(min(errors), 1e-4), min(1.15 * max(errors), 1.0)
    axes.set_ylim(low, high)
    ticks = [t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if low <= t <= high]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.yaxis.set_minor_locator(NullLocator())


def _law(plain: Axes, log: Axes, curve: Curve, style: Mapping[str, Any], *, band: bool) -> None:
    x = np.geomspace(curve.sizes[0], 2 * curve.sizes[-1], 120)
    middle, (low, high) = curve.error(x), curve.band(x)
    seen = x <= curve.sizes[-1]
    for axes, flip in ((plain, True), (log, False)):
        y, bottom, top = (1 - v if flip else v for v in (middle, low, high))
        axes.plot(x[seen], y[seen], color=style["color"], linewidth=2, linestyle=style["linestyle"])
        axes.plot(x[~seen], y[~seen], color=style["color"], linewidth=2, linestyle=":")
        if band:
            axes.fill_between(x, bottom, top, color=style["color"], alpha=0.16, linewidth=0)


# --- Freezing ---


NAMED_IN_PLACE = 6  # names of ways that there is room for; of more, the points are numbered, and the legend names them


def freezing_picture(ways: Sequence[Way], metric: str, path: Path) -> Path:
    """The metric and the training time against the number of parameters that train."""
    figure = new_figure(12, 5.4, "What freezing costs and saves")
    quality, time = figure.subplots(1, 2)
    longest = max(way.seconds for way in ways)
    scale, name = (60, "minutes") if longest >= 180 else (1, "seconds")
    seconds = [[(costs_of(run).seconds or 0) / scale for run in way.group.runs] for way in ways]
    names = [short(way.group.name, 22) for way in ways]
    if len(ways) > NAMED_IN_PLACE:
        for i, written_out in enumerate(names, 1):
            quality.plot([], [], " ", label=f"{i}  {written_out}")
        names = [str(i) for i, _ in enumerate(ways, 1)]
    _over_trained(quality, ways, [way.group.values(metric) for way in ways], names, SERIES[1])
    _over_trained(time, ways, seconds, names, SERIES[0])
    time.set_ylim(bottom=min(0, time.get_ylim()[0]))
    name_axes(quality, title=f"{titled(metric)} on the test texts", x="Parameters that train", y=unit(metric))
    name_axes(time, title="Training time", x="Parameters that train", y=f"Time ({name})")
    legend(figure, [quality])
    return save(figure, path, svg=True)


def _over_trained(
    axes: Axes, ways: Sequence[Way], values: Sequence[Sequence[float]], names: Sequence[str], style: Mapping[str, Any]
) -> None:
    """The mean of each way with its interval, and its name, over the parameters that train."""
    x = np.array([way.trained for way in ways])
    means = np.array([mean(found) for found in values])
    ends = [t_interval(found) or (m, m) for found, m in zip(values, means, strict=True)]
    reach = np.array([[m - low, high - m] for (low, high), m in zip(ends, means, strict=True)]).T
    label = "mean, 95% interval over seeds (Student's t)"
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
    where: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL - 1, "bbox": paper}
    for i, (name, n, (low, high)) in enumerate(zip(names, x, ends, strict=True)):
        at, off = ((n, high), (0, 7)) if i % 2 else ((n, low), (0, -17))  # above and below in turn
        axes.annotate(name, at, off, **where)
    axes.margins(0.12, 0.25)


# --- Sweeps ---


def sweep_curves(grids: Sequence[Grid], path: Path) -> Path:
    """The metric over one axis, validation and test beside each other, a line a variant."""
    key, metric = grids[0].keys[-1], grids[0].metric
    figure = new_figure(11, 5.2, f"{titled(metric)} over {key}")
    panels = figure.subplots(1, 2, sharey=True)
    values = in_order([value for grid in grids for value in grid.columns])
    log = len(values) > 2 and numbers(values) and values[0] > 0
    for axes, split in zip(panels, ("validation", "test"), strict=True):
        lines = [_line_of(grid, split, values, log=log) for grid in grids]
        for line, style in zip(lines, styles_of(lines), strict=True):
            draw_line(axes, line, style)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(values if log else range(len(values)), [as_toml(value) for value in values])
        name_axes(axes, title=f"On the {split} texts", x=f"{key}{' (logarithmic)' if log else ''}", y=unit(metric))
        axes.grid(alpha=0.3)
    panels[1].set_ylabel("")
    legend(figure, panels)
    return save(figure, path, svg=True)


def _line_of(grid: Grid, split: str, values: Sequence[Any], *, log: bool) -> Line:
    """A grid of one axis as a line: over its values, or over their places among all ``values``."""
    found = {}
    for (_, column), group in grid.cells.items():
        value = grid.columns[column]
        found[float(value if log else values.index(value))] = group.by_seed(grid.metric, split)
    return Line(grid.name, {x: seeds for x, seeds in sorted(found.items()) if seeds})


def heat_maps(grids: Sequence[Grid], choices: Mapping[int, Choice], path: Path) -> Path:
    """The metric at every cell, validation above test; the best region's cell is framed, the best single one dashed."""
    rows, columns = len(grids[0].rows), len(grids[0].columns)
    width = 1.6 + 0.95 * columns
    metric = grids[0].metric
    figure = new_figure(width * len(grids) + 0.6, 2 * (1.2 + 0.62 * rows) + 1, f"{titled(metric)} at every cell")
    panels = figure.subplots(2, len(grids), squeeze=False)
    for line, split in zip(panels, ("validation", "test"), strict=True):
        matrices = [grid.matrix(split) for grid in grids]
        shown = np.concatenate([m[~np.isnan(m)] for m in matrices])
        for axes, grid, matrix in zip(line, grids, matrices, strict=True):
            _heat_map(axes, grid, matrix, (float(shown.min()), float(shown.max())))
            choice = choices[id(grid)]
            _frame(axes, choice.place, "-", "best region's cell")
            if choice.highest != choice.place:
                _frame(axes, choice.highest, ":", "best single cell")
            name_axes(axes, title=f"{short(grid.name, 24)}, {split}", x=grid.keys[1], y=grid.keys[0])
            axes.spines[["top", "right"]].set_visible(True)
    legend(figure, panels.ravel())
    return save(figure, path, svg=True)


def _heat_map(axes: Axes, grid: Grid, matrix: np.ndarray, limits: tuple[float, float]) -> None:
    low, high = limits
    sign = HIGHER_IS_BETTER[grid.metric]
    depth = np.nan_to_num((matrix - low) / ((high - low) or 1))
    depth = 0.85 * (depth if sign else 1 - depth)  # the better, the darker
    axes.imshow(depth, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(grid.columns)), [as_toml(v) for v in grid.columns])
    axes.set_yticks(range(len(grid.rows)), [as_toml(v) for v in grid.rows])
    for place in np.ndindex(*matrix.shape):
        cell = "" if np.isnan(matrix[place]) else f"{matrix[place]:.3f}"
        colour = ink(SHADES(float(depth[place])))
        axes.text(place[1], place[0], cell, ha="center", va="center", fontsize=SMALL, color=colour)


def _frame(axes: Axes, place: tuple[int, int], dashes: str, label: str) -> None:
    x, y = place[1] + 0.46 * np.array([-1, 1, 1, -1, -1]), place[0] + 0.46 * np.array([-1, -1, 1, 1, -1])
    axes.plot(x, y, color=TEST, linewidth=3.5, linestyle=dashes, label=label)


def surfaces(grids: Sequence[Grid], path: Path) -> Path:
    """The validation metric as a surface over two axes, evenly spaced steps."""
    metric = grids[0].metric
    figure = new_figure(6.2 * len(grids), 5.6, f"{titled(metric)} on the validation texts")
    for i, grid in enumerate(grids, start=1):
        axes: Any = figure.add_subplot(1, len(grids), i, projection="3d")
        matrix = grid.matrix("validation")
        x, y = np.meshgrid(range(len(grid.columns)), range(len(grid.rows)))
        axes.plot_surface(x, y, matrix, cmap=SHADES, edgecolor=MARK, linewidth=0.5, alpha=0.9)
        axes.set_xticks(range(len(grid.columns)), [as_toml(v) for v in grid.columns], fontsize=SMALL - 2)
        axes.set_yticks(range(len(grid.rows)), [as_toml(v) for v in grid.rows], fontsize=SMALL - 2)
        axes.tick_params(axis="z", labelsize=SMALL - 2)
        axes.set_xlabel(grid.keys[1], fontsize=SMALL, labelpad=10)
        axes.set_ylabel(grid.keys[0], fontsize=SMALL, labelpad=10)
        axes.set_title(short(grid.name, 30), fontsize=TEXT)
        axes.view_init(elev=28, azim=-125)
    return save(figure, path, svg=True)
