"""Which setting is best, and is it in a good region or best by chance?

The settings of a grid are compared on the validation texts, and the test texts are not used to choose. A single setting
is often best by chance, but a whole neighbourhood rarely is. So the setting is chosen whose **neighbourhood** (itself
and up to 8 settings around it) has the best mean. If runs have failed, a setting may have few neighbours left; at least
half of its neighbours must have finished. Only numbers have neighbours, as the order of a list of schedules has no
meaning. The metric of the chosen setting on the test texts is reported once.

Settings are **tied** if the difference of their validation metrics is within its 95% interval: the half-width of the
chosen setting's interval over its seeds, times sqrt 2, because both settings vary. With one seed the interval is over
the validation texts, and does not include the variation between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import MaxNLocator, NullLocator

from minilm.errors import UserError
from minilm.evaluation.statistics import mean
from minilm.measures import HIGHER_IS_BETTER
from minilm.reporting.groups import Group
from minilm.reporting.over_seeds import interval_over, with_spread
from minilm.reporting.page import Block, Picture, Section, Table
from minilm.reporting.record import Run
from minilm.reporting.style import (
    MARK,
    SMALL,
    TEST,
    TEXT,
    VALIDATION,
    darker,
    ink,
    legend,
    name_axes,
    new_figure,
    save,
    short,
    widen,
    within_range,
)
from minilm.reporting.tables import ABSENT, decimal, metric_name, titled
from minilm.schema import shown as as_toml
from minilm.studies.finished import FinishedRun
from minilm.studies.line_plots import axis_label, draw_line, styles_of
from minilm.studies.lines import Line
from minilm.studies.plan import Study
from minilm.studies.question import StudyAnswer, StudyQuestion

ENOUGH_NEIGHBOURS = 0.5  # fraction of a setting's neighbours in the grid that must be measured
SURFACE_SIDE = 3  # the least number of values per axis for a surface
SHADES = LinearSegmentedColormap.from_list("shades", ["white", VALIDATION, darker(VALIDATION)])
DARKEST = 0.85  # of the shades, so that text on them stays legible


@dataclass(frozen=True)
class Grid:
    """One variant at every setting of its axes: two axes, or one (then there is one row)."""

    name: str
    keys: tuple[str, ...]  # of the rows, if there are two axes, and of the columns
    rows: list[Any]  # values of the first axis; [None] with one axis
    columns: list[Any]
    settings: dict[tuple[int, int], Group]
    metric: str

    def matrix(self, split: str) -> np.ndarray:
        """The metric at each setting, the mean over its seeds: (rows, columns), nan if nothing has run there."""
        found = np.full((len(self.rows), len(self.columns)), np.nan)
        for place, group in self.settings.items():
            if values := group.values(self.metric, split):
                found[place] = mean(values)
        return found

    def neighbourhood(self, place: tuple[int, int]) -> tuple[slice, ...]:
        """A setting and the settings around it."""
        axes = zip(place, (self.rows, self.columns), strict=True)
        return tuple(slice(max(0, i - 1), i + 2) if are_numbers(values) else slice(i, i + 1) for i, values in axes)

    def describe(self, place: tuple[int, int]) -> str:
        """``lr 0.0005, weight_decay 0.01``."""
        values = [self.columns[place[1]]] if len(self.keys) == 1 else [self.rows[place[0]], self.columns[place[1]]]
        return ", ".join(f"{k.rpartition('.')[2]} {as_toml(v)}" for k, v in zip(self.keys, values, strict=True))

    @property
    def has_surface(self) -> bool:
        """Whether there are enough values on both axes for a surface."""
        return min(len(self.rows), len(self.columns)) >= SURFACE_SIDE


@dataclass(frozen=True)
class ChosenSetting:
    """The setting that is chosen in a grid, and the evidence for it."""

    place: tuple[int, int]
    around: np.ndarray  # the metric of it and its neighbours, on the validation texts
    highest: tuple[int, int]  # the best single setting
    margin: float | None  # settings that differ by less are tied; None: unknown
    over_seeds: bool  # whether the margin is over seeds, or over validation texts
    tied: int  # settings within the margin, itself included
    measured: int  # settings that have the metric


def _answer(study: Study, runs: Sequence[FinishedRun], figures: Path) -> StudyAnswer:
    """The best setting of each grid with its neighbourhood: curves over one axis, heat map and surface over two."""
    metric = study.config.metric
    grids = grids_of(runs, metric)
    chosen = {id(grid): choose_setting(grid) for grid in grids}
    sections = []
    planes = [grid for grid in grids if len(grid.rows) > 1 and len(grid.columns) > 1]
    lines = [grid for grid in grids if grid not in planes]
    for key in dict.fromkeys(grid.keys[-1] for grid in lines):
        there = [grid for grid in lines if grid.keys[-1] == key]
        file = figures / f"curves_{key.rpartition('.')[2]}.png"
        parts: list[Block] = [Picture(_draw_curves(there, file), f"{metric_name(metric)} over {key}")]
        sections.append(Section(f"Over {key}", [*parts, _table(there, chosen)]))
    for keys in dict.fromkeys(grid.keys for grid in planes):
        there, stem = [grid for grid in planes if grid.keys == keys], "_".join(k.rpartition(".")[2] for k in keys)
        names = " and ".join(keys)
        parts = [Picture(_draw_heat_maps(there, chosen, figures / f"heat_{stem}.png"), f"Every setting of {names}")]
        if surfaces := [grid for grid in there if grid.has_surface]:
            file = figures / f"surface_{stem}.png"
            parts.append(Picture(_draw_surfaces(surfaces, file), f"The same as a surface over {names}"))
        sections.append(Section(f"Over {names}", [*parts, _table(there, chosen)]))
    reported = planes or lines
    return StudyAnswer(_headline(reported, [chosen[id(grid)] for grid in reported]), sections)


def grids_of(runs: Sequence[FinishedRun], metric: str) -> list[Grid]:
    """A grid for each variant. Raises UserError if a variant does not have one or two axes beside the seed."""
    together: dict[str, list[FinishedRun]] = {}
    for finished in runs:
        together.setdefault(finished.planned.variant, []).append(finished)
    grids = []
    for name, members in together.items():
        keys = [key for key in members[0].planned.point if key != "seed"]
        if len(keys) not in (1, 2):
            raise UserError(f'the analysis sweep needs one or two axes besides the seed, but "{name}" has {len(keys)}')
        axes = {key: in_order([f.planned.point[key] for f in members]) for key in keys}
        keys.sort(key=lambda key: len(axes[key]) > 1)  # an axis of one value comes first: curves are over the last
        rows, columns = axes[keys[0]] if len(keys) == 2 else [None], axes[keys[-1]]
        found: dict[tuple[int, int], list[Run]] = {}
        for f in members:
            values = [f.planned.point[key] for key in keys]
            place = rows.index(values[0]) if len(keys) == 2 else 0, columns.index(values[-1])
            found.setdefault(place, []).append(f.run)
        settings = {place: Group(name, tuple(group)) for place, group in found.items()}
        grids.append(Grid(name or "the model", tuple(keys), rows, columns, settings, metric))
    return grids


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether these are numbers, so that one can be next to another."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def in_order(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, other values in the order of the study."""
    once = [value for i, value in enumerate(values) if value not in values[:i]]  # lists have no hash for a set
    return sorted(once) if are_numbers(once) else once


def choose_setting(grid: Grid) -> ChosenSetting:
    """The setting with the best neighbourhood on the validation texts, among those with enough measured neighbours."""
    measured = grid.matrix("validation")
    values = measured * (1 if HIGHER_IS_BETTER[grid.metric] else -1)
    if np.isnan(values).all():
        raise UserError(f"no run of {grid.name} has the metric {grid.metric} on the validation texts")
    around, known = np.full(values.shape, -np.inf), np.zeros(values.shape)
    for place in zip(*np.nonzero(~np.isnan(values)), strict=True):
        neighbourhood = values[grid.neighbourhood(place)]
        around[place] = np.nanmean(neighbourhood).round(9)  # equal means are equal, and the better setting is chosen
        known[place] = (np.isfinite(neighbourhood).sum() - 1) / max(neighbourhood.size - 1, 1)
    enough = known >= min(ENOUGH_NEIGHBOURS, known.max())  # if no setting has so many, those with the most
    around[~enough] = -np.inf
    place = _highest(np.where(around == around.max(), values, np.nan))
    found = grid.settings[place].interval(grid.metric, "validation")
    margin = (math.sqrt(2) * (found[0].high - found[0].low) / 2 if found else 0.0) or None  # 0 is not certainty
    tied = int((np.abs(values - values[place]) <= (margin or 0)).sum())
    neighbours = measured[grid.neighbourhood(place)]
    return ChosenSetting(
        place,
        neighbours[~np.isnan(neighbours)],
        highest=_highest(values),
        margin=margin,
        over_seeds=len(grid.settings[place].values(grid.metric, "validation")) > 1,
        tied=tied,
        measured=int(np.isfinite(values).sum()),
    )


def _highest(values: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    return int(row), int(column)


def _table(grids: Sequence[Grid], chosen: Mapping[int, ChosenSetting]) -> Table:
    metric = metric_name(grids[0].metric)
    header = ["", "chosen setting", f"validation {metric}", "neighbourhood mean", "neighbourhood SD", "tied settings"]
    header += [f"test {metric}", "best single setting", f"its validation {metric}"]
    note = (
        "The setting is chosen on the validation texts, by the mean of its neighbourhood (itself and the settings next "
        "to it). Tied: the difference from the chosen setting is within its 95% interval. ±: standard deviation over "
        "the seeds."
    )
    return Table(header, [_row(grid, chosen[id(grid)]) for grid in grids], left=2, note=note)


def _row(grid: Grid, choice: ChosenSetting) -> list[str]:
    at, top = grid.settings[choice.place], grid.settings[choice.highest]
    spread = float(choice.around.std(ddof=1)) if len(choice.around) > 1 else None
    return [
        grid.name,
        grid.describe(choice.place),
        with_spread(at.values(grid.metric, "validation")),
        decimal(float(choice.around.mean())),
        decimal(spread),
        f"{choice.tied} of {choice.measured} (±{choice.margin:.4f})" if choice.margin else ABSENT,
        with_spread(at.values(grid.metric)),
        grid.describe(choice.highest),
        with_spread(top.values(grid.metric, "validation")),
    ]


# --- In words ---


def _headline(grids: Sequence[Grid], choices: Sequence[ChosenSetting]) -> str:
    """The best setting of each grid, and whether it stands out from the others."""
    both = list(zip(grids, choices, strict=True))
    best, luck = [_best_setting(*pair) for pair in both], [_how_sure(*pair) for pair in both]
    return f"Best setting{'s' if len(both) > 1 else ''}: {'; '.join(best)}. On the validation texts {'; '.join(luck)}."


def _best_setting(grid: Grid, choice: ChosenSetting) -> str:
    at = grid.settings[choice.place]
    values, found = at.values(grid.metric), at.interval(grid.metric)
    test = f"{mean(values):.3f}" + (f" ({interval_over(*found)})" if found else "") if values else "not measured"
    return f"for {grid.name} {grid.describe(choice.place)}, with test {metric_name(grid.metric)} {test}"


def _how_sure(grid: Grid, choice: ChosenSetting) -> str:
    same = choice.highest == choice.place
    single = "is the same" if same else f"is another ({grid.describe(choice.highest)})"
    text = f"the best single setting for {grid.name} {single}"
    if choice.margin is None:
        return text
    what = "seeds" if choice.over_seeds else "validation texts"
    others = choice.tied - 1
    if not others:
        return f"{text}, and it is ahead of all others by more than the 95% interval over {what} (±{choice.margin:.3f})"
    are = "setting is" if others == 1 else "settings are"
    return f"{text}, and {others} other {are} tied with it within the 95% interval over {what} (±{choice.margin:.3f})"


# --- The pictures ---


def _draw_curves(grids: Sequence[Grid], path: Path) -> Path:
    """The metric over one axis, on the validation and on the test texts, a line for each variant."""
    key, metric = grids[0].keys[-1], grids[0].metric
    figure = new_figure(11, 5.2, f"{titled(metric)} over {key}")
    panels = figure.subplots(1, 2, sharey=True)
    values = in_order([value for grid in grids for value in grid.columns])
    log = len(values) > 2 and are_numbers(values) and values[0] > 0
    for axes, split in zip(panels, ("validation", "test"), strict=True):
        lines = [_line_of(grid, split, values, log=log) for grid in grids]
        for line, style in zip(lines, styles_of(lines), strict=True):
            draw_line(axes, line, style)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(values if log else range(len(values)), [as_toml(value) for value in values])
        label = f"{key}{' (logarithmic)' if log else ''}"
        name_axes(axes, title=f"On the {split} texts", x=label, y=axis_label(metric))
        axes.grid(alpha=0.3)
    within_range(panels[0], metric)
    groups = [group for grid in grids for group in grid.settings.values()]
    widen(panels[0], metric, min(group.texts(split) for group in groups for split in ("validation", "test")))
    panels[1].set_ylabel("")
    legend(figure, panels)
    return save(figure, path, svg=True)


def _line_of(grid: Grid, split: str, values: Sequence[Any], *, log: bool) -> Line:
    """A grid of one axis as a line: over its values, or over their positions in ``values``."""
    found = {}
    for (_, column), group in grid.settings.items():
        value = grid.columns[column]
        found[float(value if log else values.index(value))] = group.by_seed(grid.metric, split)
    return Line(grid.name, grid.metric, {x: seeds for x, seeds in sorted(found.items()) if seeds})


def _draw_heat_maps(grids: Sequence[Grid], chosen: Mapping[int, ChosenSetting], path: Path) -> Path:
    """The metric at every setting, validation above test, with a scale; the chosen setting is framed."""
    rows, columns = len(grids[0].rows), len(grids[0].columns)
    width = 1.6 + 0.95 * columns
    metric = grids[0].metric
    figure = new_figure(width * len(grids) + 1.5, 2 * (1.2 + 0.62 * rows) + 1, f"{titled(metric)} at every setting")
    panels = figure.subplots(2, len(grids), squeeze=False)
    for line, split in zip(panels, ("validation", "test"), strict=True):
        matrices = [grid.matrix(split) for grid in grids]
        shown = np.concatenate([m[~np.isnan(m)] for m in matrices])
        if not len(shown):
            continue
        limits = float(shown.min()), float(shown.max())
        for axes, grid, matrix in zip(line, grids, matrices, strict=True):
            _draw_heat_map(axes, grid, matrix, limits)
            choice = chosen[id(grid)]
            _draw_frame(axes, choice.place, "-", "chosen: best mean with its neighbours")
            if choice.highest != choice.place:
                _draw_frame(axes, choice.highest, ":", "best single setting")
            name_axes(axes, title=f"{short(grid.name, 24)}, {split}", x=grid.keys[1], y=grid.keys[0])
            axes.spines[["top", "right"]].set_visible(True)
        _draw_scale(line, metric, limits)
    legend(figure, panels.ravel())
    return save(figure, path, svg=True)


def _depth(values: np.ndarray | float, metric: str, limits: tuple[float, float]) -> np.ndarray:
    """How dark a value is, 0 to DARKEST: the better, the darker."""
    low, high = limits
    depth = np.nan_to_num((np.asarray(values) - low) / ((high - low) or 1))
    return DARKEST * (depth if HIGHER_IS_BETTER[metric] else 1 - depth)


def _draw_heat_map(axes: Axes, grid: Grid, matrix: np.ndarray, limits: tuple[float, float]) -> None:
    depth = _depth(matrix, grid.metric, limits)
    axes.imshow(depth, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(grid.columns)), [as_toml(v) for v in grid.columns])
    axes.set_yticks(range(len(grid.rows)), [as_toml(v) for v in grid.rows])
    for place in np.ndindex(*matrix.shape):
        cell = "" if np.isnan(matrix[place]) else f"{matrix[place]:.3f}"
        colour = ink(SHADES(float(depth[place])))
        axes.text(place[1], place[0], cell, ha="center", va="center", fontsize=SMALL, color=colour)


def _draw_scale(panels: Sequence[Axes], metric: str, limits: tuple[float, float]) -> None:
    """What the shades mean, beside a row of heat maps."""
    low, high = limits
    depths = _depth(np.linspace(low, high, 256), metric, limits) if high > low else np.full(256, DARKEST)
    shades = LinearSegmentedColormap.from_list("scale", SHADES(depths))
    mappable = ScalarMappable(Normalize(low, high if high > low else low + 1e-9), shades)
    bar = panels[0].figure.colorbar(mappable, ax=list(panels), aspect=16, pad=0.02)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    bar.ax.tick_params(labelsize=SMALL - 1)
    bar.set_label(axis_label(metric), fontsize=SMALL)


def _draw_frame(axes: Axes, place: tuple[int, int], dashes: str, label: str) -> None:
    x, y = place[1] + 0.46 * np.array([-1, 1, 1, -1, -1]), place[0] + 0.46 * np.array([-1, -1, 1, 1, -1])
    axes.plot(x, y, color=TEST, linewidth=3.5, linestyle=dashes, label=label)


def _draw_surfaces(grids: Sequence[Grid], path: Path) -> Path:
    """The validation metric as a surface over two axes, in evenly spaced steps."""
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


SWEEP = StudyQuestion(
    "sweep",
    _answer,
    fits=lambda study: all(len(run.point.keys() - {"seed"}) in (1, 2) for run in study.runs),
    needs="one or two axes besides the seed for each run",
)
