"""Which setting is best, and is it a good region or a lucky cell?

The cells of a grid are compared on the validation texts, as the test texts choose nothing. A cell stands out by luck
now and then, its neighbours with it hardly ever: so the cell is taken whose **neighbourhood**, itself and the up to 8
cells about it, has the best mean. What it then reaches on the test texts is told once.

How far two cells may differ by chance is told by the interval of the best one, over its seeds, or of one seed over the
validation texts; times sqrt 2, as both of them vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm.errors import UserError
from minilm.evaluation.metrics import HIGHER_IS_BETTER
from minilm.evaluation.statistics import mean
from minilm.reporting.groups import Group
from minilm.reporting.page import Part, Picture, Section, Table
from minilm.reporting.tables import ABSENT, decimal, metric_name
from minilm.schema import shown as as_toml
from minilm.studies.questions.lines import with_spread

if TYPE_CHECKING:
    from minilm.reporting.record import Run
    from minilm.studies.analyses import Finished
    from minilm.studies.config import Study


@dataclass(frozen=True)
class Grid:
    """One variant at every point of its axes: two, or one (then there is one row)."""

    name: str
    keys: tuple[str, ...]  # of rows, if there are two, and of columns
    rows: list[Any]  # values of the first axis; [None] with one axis
    columns: list[Any]
    cells: dict[tuple[int, int], Group]
    metric: str

    def matrix(self, split: str) -> np.ndarray:
        """The metric at each cell, the mean over its seeds: (rows, columns), nan where nothing has run."""
        found = np.full((len(self.rows), len(self.columns)), np.nan)
        for place, group in self.cells.items():
            if values := group.values(self.metric, split):
                found[place] = mean(values)
        return found

    def where(self, place: tuple[int, int]) -> str:
        """``lr 0.0005, weight_decay 0.01``."""
        values = [self.columns[place[1]]] if len(self.keys) == 1 else [self.rows[place[0]], self.columns[place[1]]]
        return ", ".join(f"{k.rpartition('.')[2]} {as_toml(v)}" for k, v in zip(self.keys, values, strict=True))


@dataclass(frozen=True)
class Choice:
    """The cell that is taken, and what speaks for it."""

    place: tuple[int, int]
    around: np.ndarray  # the metric of it and its neighbours, on the validation texts
    highest: tuple[int, int]  # the best single cell
    reach: float | None  # cells that differ by less cannot be told apart; None: not known
    alike: int  # cells within that reach, itself included


def sweep(study: Study, runs: Sequence[Finished], figures: Path) -> tuple[str, list[Section]]:
    """The best cell of each grid with its neighbourhood: curves over one axis, heat map and surface over two."""
    from minilm.studies.questions.pictures import heat_maps, surfaces, sweep_curves

    grids = grids_of(runs, study.config.metric)
    choices = {id(grid): choose(grid) for grid in grids}
    sections = []
    planes = [grid for grid in grids if len(grid.rows) > 1 and len(grid.columns) > 1]
    lines = [grid for grid in grids if grid not in planes]
    for key in dict.fromkeys(grid.keys[-1] for grid in lines):
        there = [grid for grid in lines if grid.keys[-1] == key]
        file = figures / f"curves_{key.rpartition('.')[2]}.png"
        parts: list[Part] = [Picture(sweep_curves(there, file), f"{metric_name(study.config.metric)} over {key}")]
        sections.append(Section(f"Over {key}", [*parts, _table(there, choices)]))
    for keys in dict.fromkeys(grid.keys for grid in planes):
        there, stem = [grid for grid in planes if grid.keys == keys], "_".join(k.rpartition(".")[2] for k in keys)
        parts = [
            Picture(heat_maps(there, choices, figures / f"heat_{stem}.png"), f"Each cell of {' and '.join(keys)}"),
            Picture(
                surfaces(there, figures / f"surface_{stem}.png"), f"The same as a surface over {' and '.join(keys)}"
            ),
            _table(there, choices),
        ]
        sections.append(Section(f"Over {' and '.join(keys)}", parts))
    told = planes or lines
    return answer(told, [choices[id(grid)] for grid in told]), sections


def grids_of(runs: Sequence[Finished], metric: str) -> list[Grid]:
    """A grid for each variant. Raises UserError where one has not one or two axes beside the seed."""
    together: dict[str, list[Finished]] = {}
    for finished in runs:
        together.setdefault(finished.planned.variant, []).append(finished)
    grids = []
    for name, members in together.items():
        keys = tuple(key for key in members[0].planned.point if key != "seed")
        if len(keys) not in (1, 2):
            raise UserError(f'the analysis sweep needs one axis or two beside the seed, "{name}" has {len(keys)}')
        axes = [sorted({f.planned.point[key] for f in members}, key=_order) for key in keys]
        rows, columns = axes if len(keys) == 2 else ([None], axes[0])
        cells: dict[tuple[int, int], list[Run]] = {}
        for f in members:
            values = [f.planned.point[key] for key in keys]
            place = rows.index(values[0]) if len(keys) == 2 else 0, columns.index(values[-1])
            cells.setdefault(place, []).append(f.run)
        groups = {place: Group(name, tuple(found)) for place, found in cells.items()}
        grids.append(Grid(name or "all", keys, rows, columns, groups, metric))
    return grids


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers by size, before all else."""
    return isinstance(value, str), value


def choose(grid: Grid) -> Choice:
    """The cell whose neighbourhood is best on the validation texts."""
    values = grid.matrix("validation") * (1 if HIGHER_IS_BETTER[grid.metric] else -1)
    if np.isnan(values).all():
        raise UserError(f"no run of {grid.name} has the metric {grid.metric} on the validation texts")
    around = np.full(values.shape, np.nan)
    for place in zip(*np.nonzero(~np.isnan(values)), strict=True):
        around[place] = np.nanmean(values[neighbourhood(place)])
    row, column = np.unravel_index(np.nanargmax(around), around.shape)
    place, top = (int(row), int(column)), np.unravel_index(np.nanargmax(values), values.shape)
    found = grid.cells[place].interval(grid.metric, "validation")
    reach = math.sqrt(2) * (found[0].high - found[0].low) / 2 if found else None
    alike = int((np.abs(values - values[place]) <= (reach or 0)).sum())
    cells = grid.matrix("validation")[neighbourhood(place)]
    return Choice(place, cells[~np.isnan(cells)], (int(top[0]), int(top[1])), reach, alike)


def neighbourhood(place: tuple[int, ...]) -> tuple[slice, ...]:
    """A cell and those about it."""
    return tuple(slice(max(0, i - 1), i + 2) for i in place)


def _table(grids: Sequence[Grid], choices: dict[int, Choice]) -> Table:
    metric = metric_name(grids[0].metric)
    header = ["", "best region's cell", f"validation {metric}", "with its neighbours", "their spread"]
    header += ["not told apart from it", f"test {metric}", "best single cell", f"its validation {metric}"]
    rows = []
    for grid in grids:
        choice, cells = (
            choices[id(grid)],
            sum(len(group.values(grid.metric, "validation")) > 0 for group in grid.cells.values()),
        )
        spread = float(choice.around.std(ddof=1)) if len(choice.around) > 1 else None
        alike = f"{choice.alike} of {cells} (within {choice.reach:.4f})" if choice.reach is not None else ABSENT
        at, top = grid.cells[choice.place], grid.cells[choice.highest]
        rows.append(
            [
                grid.name,
                grid.where(choice.place),
                with_spread(at.values(grid.metric, "validation")),
                decimal(float(choice.around.mean())),
                decimal(spread),
                alike,
                with_spread(at.values(grid.metric)),
                grid.where(choice.highest),
                with_spread(top.values(grid.metric, "validation")),
            ]
        )
    note = "The cell is chosen on the validation texts, by the mean of it and its neighbours. ±: over the seeds."
    return Table(header, rows, left=2, note=note)


def answer(grids: Sequence[Grid], choices: Sequence[Choice]) -> str:
    """Two sentences: the best region of each, and what of it could be luck."""
    found = []
    for grid, choice in zip(grids, choices, strict=True):
        at = grid.cells[choice.place]
        interval = at.interval(grid.metric)
        between = (
            f" (95% interval {interval[0].low:.3f} to {interval[0].high:.3f} over {interval[1]})" if interval else ""
        )
        values = at.values(grid.metric)
        test = f"{mean(values):.3f}{between}" if values else "not measured"
        found.append(
            f"{grid.name} does best about {grid.where(choice.place)}, with test {metric_name(grid.metric)} {test}"
        )
    luck = []
    for grid, choice in zip(grids, choices, strict=True):
        lucky = choice.highest != choice.place
        said = f"the best single cell of {grid.name} is {'another' if lucky else 'the same'}"
        said += f" ({grid.where(choice.highest)})" if lucky else ""
        if choice.reach is not None:
            said += (
                f", and {choice.alike} of its {len(grid.cells)} cells lie within {choice.reach:.3f} of the one chosen,"
            )
            said += " as far as chance may move them"
        luck.append(said)
    return f"{'; '.join(found)}. On the validation texts {'; '.join(luck)}."
